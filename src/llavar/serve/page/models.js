// @ts-check
/** Which models answer: those of this server, those of others that the user names, and the settings for both. */

import { Endpoint, LOADING, Refused, elsewhere } from './endpoint.js'
import * as settings from './settings.js'
import { $, announcer, opened, page, title, words } from './state.js'
import { problem } from './turns.js'
import { showViews } from './viewer.js'

const OTHER = 'other'
const AGAIN = 2000 // milliseconds until models that are being loaded are asked for again

/** @type {ReturnType<typeof setTimeout> | undefined} */
let later

const own = new Endpoint(new URL('v1', document.baseURI).href)

export async function connect() {
  own.key = page.options.key
  clearTimeout(later)
  try {
    await own.models()
    problem($('page-error'), '')
    page.endpoints = [own, ...page.endpoints.filter((one) => one !== own)]
    page.chosen = page.chosen.map((choice, column) => {
      if (choice ? !choice.endpoint.own : column) return choice // of another server, or not compared
      return { endpoint: own, model: own.names.find((name) => name === choice?.model) ?? own.names[0] }
    })
  } catch (error) {
    const status = error instanceof Refused ? error.status : 0
    if (status === LOADING) later = setTimeout(connect, AGAIN)
    const locked = status === 401
    problem($('page-error'), words(error), locked ? 'Enter the key' : 'Try again', locked ? openSettings : connect)
    if (locked) openSettings(true)
  }
  showModels()
}

function showModels() {
  const comparing = page.chosen[1] !== null
  for (const [column, choice] of page.chosen.entries()) {
    const select = $(`model-${column}`)
    const listed = page.endpoints.flatMap((endpoint, at) => endpoint.names.map((name, index) => ({ endpoint, name, value: `${at}:${index}` })))
    select.replaceChildren(
      ...listed.map(({ endpoint, name, value }) => option(value, title({ endpoint, model: name }))),
      option(OTHER, 'Another server…'),
    )
    select.value = listed.find((one) => one.endpoint === choice?.endpoint && one.name === choice?.model)?.value ?? ''
    select.disabled = !page.endpoints.length
  }
  for (const id of ['compare', 'code-0']) $(id).disabled = !page.chosen[0]
  $('compare').hidden = comparing
  document.querySelector('[data-column="1"]')?.toggleAttribute('hidden', !comparing)
  document.body.classList.toggle('comparing', comparing)
  showViews()
}

/** @param {string} value @param {string} label */
function option(value, label) {
  const made = /** @type {any} */ (document.createElement('wa-option'))
  made.value = value
  made.textContent = label
  return made
}

/** @param {number} column */
export function choose(column) {
  const value = String($(`model-${column}`).value ?? '')
  if (value === OTHER) {
    showModels() // what was chosen stays chosen until another server answers
    openOther(column)
    return
  }
  const [at, index] = value.split(':').map(Number)
  const endpoint = page.endpoints[at]
  if (!endpoint) return
  page.chosen[column] = { endpoint, model: endpoint.names[index] }
  showViews()
}

export async function compare() {
  await own.models().catch(() => {}) // one more may have been loaded since
  const first = page.chosen[0]
  const others = page.endpoints.flatMap((endpoint) => endpoint.names.map((model) => ({ endpoint, model })))
  const second = others.find((one) => one.endpoint !== first?.endpoint || one.model !== first.model)
  if (!second) {
    openOther(1)
    return
  }
  page.chosen[1] = second
  showModels()
  $('model-1').focus()
}

export function stopComparing() {
  page.chosen[1] = null
  showModels()
  $('compare').focus()
}

/** @param {number} column that the other server is for */
function openOther(column) {
  $('other').dataset.column = String(column)
  problem($('other-error'), '')
  opened('other', 'other-base')
}

export async function connectOther() {
  const column = Number($('other').dataset.column)
  $('connect').loading = true
  problem($('other-error'), '')
  try {
    const endpoint = await elsewhere(String($('other-base').value ?? '').trim(), String($('other-key').value ?? '').trim())
    if (endpoint.base === own.base) throw new Refused('That is the server of this page; its models are in the list already.')
    await endpoint.models()
    page.endpoints = [...page.endpoints.filter((one) => one.base !== endpoint.base), endpoint]
    page.chosen = page.chosen.map((choice) => choice && choice.endpoint.base === endpoint.base ? { ...choice, endpoint } : choice)
    page.chosen[column] = { endpoint, model: endpoint.names[0] }
    $('other').open = false
    showModels()
    announcer.say(`${endpoint.names[0]} at ${endpoint.host} answers now.`)
  } catch (error) {
    problem($('other-error'), words(error))
  } finally {
    $('connect').loading = false
  }
}

export function openSettings(toKey = false) {
  $('temperature').value = String(page.options.temperature)
  $('max-tokens').value = page.options.maxTokens === null ? '' : String(page.options.maxTokens)
  $('key').value = page.options.key
  opened('settings', toKey === true ? 'key' : 'temperature')
}

export function saveSettings() {
  for (const id of ['temperature', 'max-tokens']) if (!$(id).reportValidity()) return
  const before = page.options.key
  page.options = settings.checked({ temperature: $('temperature').value, maxTokens: $('max-tokens').value, key: $('key').value })
  settings.save(page.options)
  $('settings').open = false
  if (page.options.key !== before || !page.chosen[0]) void connect()
}
