// @ts-check
/**
 * The conversation as data: what was asked, and what each column answered.
 *
 * @typedef {import('./endpoint.js').Message} Message
 * @typedef {'waiting' | 'streaming' | 'done' | 'stopped' | 'failed'} State
 * @typedef {{column: number, model: string, text: string, state: State}} Answer
 * @typedef {{question: string, answers: Answer[]}} Turn
 */

/**
 * The messages of a request: all turns that this column answered, then the open question. The picture goes
 * into the first of them, before its text. Turns that failed, or were stopped before the first word, are left
 * out, since a model must not find its own gaps there.
 * @param {Turn[]} turns @param {number} column @param {string} question @param {string | null} picture
 * @returns {Message[]}
 */
export function messages(turns, column, question, picture) {
  /** @type {Message[]} */
  const said = []
  for (const turn of turns) {
    const answer = turn.answers.find((one) => one.column === column)
    if (!answer?.text || !['done', 'stopped'].includes(answer.state)) continue
    said.push({ role: 'user', content: turn.question }, { role: 'assistant', content: answer.text })
  }
  said.push({ role: 'user', content: question })
  if (picture !== null) {
    const text = said[0].content
    said[0].content = [{ type: 'image_url', image_url: { url: picture } }, { type: 'text', text }]
  }
  return said
}

/**
 * Hands an answer to a screen reader in whole sentences while it streams, none of them twice. Words that come
 * one by one would be read one by one, or the whole answer again at each of them.
 */
export class Announcer {
  /** @param {HTMLElement} log an element with role="log" */
  constructor(log) {
    this.log = log
  }

  /** @param {string} text */
  say(text) {
    if (!text.trim()) return
    const line = document.createElement('p')
    line.textContent = text
    this.log.append(line)
  }

  /** Forget what was read; otherwise it would be found a second time beside the conversation. */
  clear() {
    this.log.replaceChildren()
  }

  /** @param {string} name who answers @param {boolean} whole read at the end alone, so that two do not mix */
  stream(name, whole) {
    let pending = `${name}: `
    return {
      add: (/** @type {string} */ text) => {
        pending += text
        const end = whole ? -1 : Math.max(...['. ', '! ', '? ', '\n', '。'].map((mark) => pending.lastIndexOf(mark)))
        if (end < 40) return
        this.say(pending.slice(0, end + 1))
        pending = pending.slice(end + 1)
      },
      end: (/** @type {string} */ note) => this.say(`${pending} ${note}`.trim()),
    }
  }
}
