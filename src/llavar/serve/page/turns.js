// @ts-check
/** Questions and answers on the page. Everything that a model or a server said goes in as text. */

/**
 * @typedef {import('./talk.js').Answer} Answer
 * @typedef {{name: string, host: string, model: string}} Who
 */

/**
 * A turn with an empty place for each answer.
 * @param {string} question @param {string[]} names of those who answer
 */
export function turn(question, names) {
  const item = element('li', 'turn')
  const asked = element('h3', 'question')
  asked.dir = 'auto'
  asked.append(element('span', 'hidden', 'You asked: '), question)
  const answers = element('div', 'answers')
  const views = names.map((name, column) => new AnswerView(name, column))
  answers.append(...views.map((view) => view.element))
  item.append(asked, answers)
  return { item, views }
}

/** One answer as it comes. */
export class AnswerView {
  /** @param {string} name @param {number} column */
  constructor(name, column) {
    this.element = element('article', `answer column-${column}`)
    const who = element('h4', 'who', name)
    this.text = element('p', 'text')
    this.text.dir = 'auto'
    this.node = document.createTextNode('')
    this.text.append(this.node)
    this.note = element('p', 'note')
    this.problem = element('div', 'problem')
    this.problem.hidden = true
    this.element.append(who, this.text, this.problem, this.note)
    this.begin()
  }

  begin() {
    this.node.data = ''
    this.note.textContent = ''
    this.problem.hidden = true
    this.text.classList.add('open')
    this.element.setAttribute('aria-busy', 'true')
  }

  /** @param {string} text */
  add(text) {
    this.node.appendData(text)
  }

  /** @param {string} note what is said under the answer */
  end(note) {
    this.text.classList.remove('open')
    this.element.removeAttribute('aria-busy')
    this.note.textContent = note
    this.text.classList.toggle('none', !this.node.data)
  }

  /** @param {string} sentence @param {() => void} again */
  fail(sentence, again) {
    this.end('')
    problem(this.problem, sentence, 'Try again', again)
  }

  /** Takes the way to ask again away, once the conversation went on. */
  settle() {
    this.problem.querySelector('wa-button')?.remove()
  }
}

/**
 * Shows a sentence about something that went wrong, with a way out if there is one; no sentence hides it.
 * @param {HTMLElement} place @param {string} sentence @param {string} [label] @param {() => void} [action]
 */
export function problem(place, sentence, label, action) {
  place.hidden = !sentence
  if (place.dataset.said === sentence) return // else a screen reader would read it again
  place.dataset.said = sentence
  place.replaceChildren()
  if (!sentence) return
  const callout = document.createElement('wa-callout')
  callout.setAttribute('variant', 'danger')
  callout.setAttribute('size', 's')
  callout.append(element('p', 'sentence', sentence))
  if (label && action) {
    const button = document.createElement('wa-button')
    button.setAttribute('size', 's')
    button.setAttribute('variant', 'danger')
    button.setAttribute('appearance', 'outlined')
    button.textContent = label
    button.addEventListener('click', action)
    callout.append(button)
  }
  place.append(callout)
}

/** @param {string} tag @param {string} kind @param {string} [text] */
export function element(tag, kind, text) {
  const made = document.createElement(tag)
  if (kind) made.className = kind
  if (text !== undefined) made.textContent = text
  return made
}
