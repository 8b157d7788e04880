// @ts-check
/** The page: what its buttons and keys do, and a request as code. */

// Before the components are defined, so that none is drawn light first.
const dark = matchMedia('(prefers-color-scheme: dark)')
const shade = () => document.documentElement.classList.toggle('wa-dark', dark.matches)
dark.addEventListener('change', shade)
shade()
await import('./vendor/webawesome.js')

import { ask, restart, stop } from './asking.js'
import { choose, compare, connect, connectOther, openSettings, saveSettings, stopComparing } from './models.js'
import { carried } from './picture.js'
import * as snippets from './snippets.js'
import { $, announcer, on, page } from './state.js'
import { messages } from './talk.js'
import { drop, look, shoot, stopCamera, take, takeExample, takePhotograph } from './viewer.js'

const FIRST_QUESTION = 'What does the text in this picture say?'

// --- a request as code ----------------------------------------------------------------------------------

/** @param {number} column */
function openCode(column) {
  const choice = page.chosen[column]
  if (!choice) return
  // The request that brought the last answer; before the first one, the request that Ask would send.
  const last = page.turns.at(-1)
  const question = last?.question ?? (String($('question').value ?? '').trim() || FIRST_QUESTION)
  const { picture } = page
  const asked = {
    base: choice.endpoint.base, model: choice.model, options: page.options, file: picture && picture.name,
    type: picture?.url.slice(5, picture.url.indexOf(';')) ?? '', key: Boolean(choice.endpoint.key),
    messages: messages(page.turns.slice(0, -1), column, question, picture && snippets.PICTURE),
  }
  $('code-curl').textContent = snippets.curl(asked)
  $('code-python').textContent = snippets.python(asked)
  $('code-note').textContent = picture
    ? `Run it where ${picture.name} lies.${picture.note ? ` Here, the picture was ${picture.note}.` : ''}`
    : 'There is no picture in this request.'
  copied(false)
  $('code').open = true
}

async function copy() {
  const panel = /** @type {any} */ (document.querySelector('#code wa-tab-group')).active
  const pre = $(panel === 'python' ? 'code-python' : 'code-curl')
  try {
    await navigator.clipboard.writeText(pre.textContent)
  } catch {
    getSelection()?.selectAllChildren(pre) // no clipboard on plain http: the old way
    document.execCommand('copy')
  }
  copied(true)
}

/** @param {boolean} done */
function copied(done) {
  $('copy').querySelector('span').textContent = done ? 'Copied' : 'Copy'
  $('copy').querySelector('wa-icon').name = done ? 'check' : 'copy'
  if (done) announcer.say('Copied.')
}

// --- buttons, keys, files -------------------------------------------------------------------------------

on('choose', 'click', () => $('file').click())
on('replace', 'click', () => $('file').click())
on('remove', 'click', drop)
on('view', 'change', () => void look())
on('restart', 'click', () => { restart(); $('question').focus() })
on('ask', 'click', ask)
on('stop', 'click', stop)
on('composer', 'submit', (event) => { event.preventDefault(); ask() })
on('question', 'keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
  event.preventDefault()
  ask()
})
on('compare', 'click', () => void compare())
on('close-compare', 'click', stopComparing)
on('open-settings', 'click', () => openSettings())
on('save-settings', 'click', saveSettings)
on('connect', 'click', () => void connectOther())
on('copy', 'click', () => void copy())
on('shutter', 'click', shoot)
on('camera', 'wa-hide', (event) => { if (event.target === $('camera')) stopCamera($('video').srcObject) })
for (const column of [0, 1]) {
  on(`model-${column}`, 'change', () => choose(column))
  on(`code-${column}`, 'click', () => openCode(column))
}
for (const [dialog, act] of /** @type {const} */ ([['settings', saveSettings], ['other', connectOther]])) {
  $(dialog).querySelector('form').addEventListener('submit', (/** @type {Event} */ event) => event.preventDefault())
  on(dialog, 'keydown', (event) => {
    if (event.key === 'Enter' && event.target.localName === 'wa-input') { event.preventDefault(); void act() }
  })
}
for (const id of ['file', 'capture']) {
  on(id, 'change', () => {
    void take($(id).files[0] ?? null)
    $(id).value = '' // so that the same file can be chosen again
  })
}
for (const button of document.querySelectorAll('.photograph')) {
  const possible = Boolean(navigator.mediaDevices?.getUserMedia) || matchMedia('(pointer: coarse)').matches
  button.toggleAttribute('hidden', !possible)
  button.addEventListener('click', () => void takePhotograph())
}
for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll('[data-example]'))) {
  const { example = '', question = '' } = button.dataset
  button.addEventListener('click', () => void takeExample(example, question))
}
addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && !document.querySelector('wa-dialog[open]')) stop()
})
addEventListener('paste', (event) => {
  const file = carried(event.clipboardData)
  if (!file) return // text goes into the question
  event.preventDefault()
  void take(file)
})
addEventListener('dragover', (event) => {
  if (!event.dataTransfer?.types.includes('Files')) return
  event.preventDefault()
  $('drop').hidden = false
})
addEventListener('dragleave', (event) => { if (!event.relatedTarget) $('drop').hidden = true })
addEventListener('drop', (event) => {
  $('drop').hidden = true
  if (!event.dataTransfer?.types.includes('Files')) return
  event.preventDefault()
  void take(carried(event.dataTransfer))
})

document.body.classList.add('ready')
await connect()
