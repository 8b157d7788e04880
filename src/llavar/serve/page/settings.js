// @ts-check
/**
 * What the user set, kept in the session storage of the tab: an API key must not outlive it.
 *
 * @typedef {{temperature: number, maxTokens: number | null, key: string}} Settings
 */

const PLACE = 'llavar.settings'

/** @returns {Settings} */
export function load() {
  try {
    return checked(JSON.parse(sessionStorage.getItem(PLACE) ?? '{}'))
  } catch {
    return checked({}) // storage is forbidden, or holds something else
  }
}

/** @param {Settings} settings */
export function save(settings) {
  try {
    sessionStorage.setItem(PLACE, JSON.stringify(settings))
  } catch {
    // Storage is forbidden: the settings live as long as the page.
  }
}

/** @param {any} found @returns {Settings} */
export function checked(found) {
  const temperature = Number(found?.temperature)
  const maxTokens = Number(found?.maxTokens)
  return {
    temperature: Number.isFinite(temperature) && temperature >= 0 ? Math.min(temperature, 2) : 0,
    maxTokens: Number.isInteger(maxTokens) && maxTokens > 0 ? maxTokens : null,
    key: typeof found?.key === 'string' ? found.key.trim() : '',
  }
}
