// @ts-check
/** Questions out, answers in as they come. */

import { $, announcer, page, title, words } from './state.js'
import { messages } from './talk.js'
import { turn as turnView } from './turns.js'

/** @typedef {import('./state.js').Choice} Choice */

/** @type {Set<AbortController>} of answers under way */
const running = new Set()
/** @type {import('./turns.js').AnswerView[]} of the last turn */
let last = []

export function ask() {
  const question = String($('question').value ?? '').trim()
  if (running.size) {
    announcer.say('The answer still comes; Escape stops it.')
    return
  }
  const choices = page.chosen.flatMap((choice, column) => (choice ? [{ ...choice, column }] : []))
  if (!question || !choices.length) {
    $('question').focus()
    return
  }
  for (const view of last) view.settle()
  announcer.clear()
  $('question').value = ''
  $('welcome').hidden = true
  $('restart').hidden = false
  document.body.classList.add('talking')
  const { item, views } = turnView(question, choices.map(title))
  $('turns').append(item)
  last = views
  const earlier = [...page.turns]
  /** @type {import('./talk.js').Turn} */
  const turn = { question, answers: choices.map(({ column, model }) => ({ column, model, text: '', state: 'waiting' })) }
  page.turns.push(turn)
  views.forEach((view, index) => void answer(choices[index], earlier, turn, turn.answers[index], view))
  $('question').focus()
  follow(true)
}

/**
 * @param {Choice} choice @param {import('./talk.js').Turn[]} earlier @param {import('./talk.js').Turn} turn
 * @param {import('./talk.js').Answer} into @param {import('./turns.js').AnswerView} view
 */
async function answer(choice, earlier, turn, into, view) {
  const control = new AbortController()
  const spoken = announcer.stream(title(choice), turn.answers.length > 1)
  const started = performance.now()
  let tokens = 0
  let finish = ''
  Object.assign(into, { text: '', state: 'streaming' })
  view.begin()
  busy(control, true)
  try {
    const said = messages(earlier, into.column, turn.question, page.picture?.url ?? null)
    for await (const piece of choice.endpoint.answer(choice.model, said, page.options, control.signal)) {
      if (piece.text) {
        const near = nearEnd()
        into.text += piece.text
        view.add(piece.text)
        spoken.add(piece.text)
        follow(near)
      }
      tokens = piece.tokens ?? tokens
      finish = piece.finish ?? finish
    }
    into.state = 'done'
    view.end(remarks(into.text, finish, tokens, performance.now() - started))
    spoken.end(into.text ? '' : 'The answer is empty.')
  } catch (error) {
    if (control.signal.aborted) {
      into.state = 'stopped'
      view.end('Stopped.')
      spoken.end('Stopped.')
    } else {
      into.state = 'failed'
      view.fail(words(error), () => void answer(choice, earlier, turn, into, view))
      spoken.end(words(error))
    }
  } finally {
    busy(control, false)
    follow(nearEnd(200))
  }
}

/** @param {string} text @param {string} finish @param {number} tokens @param {number} milliseconds */
function remarks(text, finish, tokens, milliseconds) {
  const seconds = (milliseconds / 1000).toFixed(1)
  return [
    text ? '' : 'The answer is empty.',
    finish === 'length' ? 'Cut off at the longest answer that is allowed.' : '',
    tokens ? `${tokens} ${tokens === 1 ? 'token' : 'tokens'} in ${seconds} s` : `${seconds} s`,
  ].filter(Boolean).join(' ')
}

/** @param {AbortController} control @param {boolean} on */
function busy(control, on) {
  if (on) running.add(control)
  else running.delete(control)
  $('stop').hidden = !running.size
  $('ask').disabled = running.size > 0
}

export function stop() {
  if (!running.size) return
  for (const control of running) control.abort()
  $('question').focus()
}

export function restart() {
  stop()
  page.turns = []
  last = []
  $('turns').replaceChildren()
  announcer.clear()
  $('welcome').hidden = false
  $('restart').hidden = true
  document.body.classList.remove('talking')
}

function nearEnd(within = 80) {
  const { scrollHeight, scrollTop, clientHeight } = document.documentElement
  return scrollHeight - scrollTop - clientHeight < within
}

/** Keeps the end in sight, unless the reader went up. @param {boolean} wanted */
function follow(wanted) {
  if (wanted) scrollTo({ top: document.documentElement.scrollHeight })
}
