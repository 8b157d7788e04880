// @ts-check
/** What the parts of the page share: its state, its elements and its words. */

import { Refused } from './endpoint.js'
import { Unusable } from './picture.js'
import * as settings from './settings.js'
import { Announcer } from './talk.js'

/** @typedef {{endpoint: import('./endpoint.js').Endpoint, model: string}} Choice */

export const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id))

/** @param {string} id @param {string} event @param {(event: any) => void} react */
export const on = (id, event, react) => $(id).addEventListener(event, react)

export const page = {
  options: settings.load(),
  /** @type {import('./endpoint.js').Endpoint[]} */
  endpoints: [],
  /** @type {(Choice | null)[]} by column; the second is null unless two are compared */
  chosen: [null, null],
  /** @type {import('./picture.js').Picture | null} */
  picture: null,
  /** @type {import('./talk.js').Turn[]} */
  turns: [],
}

export const announcer = new Announcer($('said'))

/** What a model is called on the page. @param {Choice} choice */
export function title({ endpoint, model }) {
  return !endpoint.own ? `${model} (${endpoint.host})` : model
}

/** Opens a dialog and puts the focus where the user goes on. @param {string} id @param {string} focus */
export function opened(id, focus) {
  $(id).addEventListener('wa-after-show', () => $(focus).focus(), { once: true })
  $(id).open = true
}

/** @param {unknown} error */
export function words(error) {
  if (error instanceof Refused || error instanceof Unusable) return error.message
  console.error(error)
  return 'Something went wrong on this page; the console of the browser says what.'
}
