// @ts-check
/** The picture: how it comes in, and who sees what of it. */

import { restart } from './asking.js'
import { Refused } from './endpoint.js'
import * as pictures from './picture.js'
import { $, announcer, opened, page, title, words } from './state.js'
import { problem } from './turns.js'

/** @type {AbortController | null} of the request for the picture as a model sees it */
let looking = null

/** @param {File | null} file */
export async function take(file) {
  if (!file) return
  try {
    hold(await pictures.open(file))
  } catch (error) {
    problem($('picture-error'), words(error))
  }
}

/** @param {import('./picture.js').Picture} picture */
function hold(picture) {
  const fresh = page.turns.length > 0
  restart()
  page.picture = picture
  problem($('picture-error'), '')
  $('empty').hidden = true
  $('filled').hidden = false
  showViews()
  announcer.say(`Picture ${picture.name}, ${picture.width} by ${picture.height} pixels.${fresh ? ' A new conversation begins.' : ''}`)
  $('question').focus()
}

export function drop() {
  restart()
  page.picture = null
  looking?.abort()
  $('empty').hidden = false
  $('filled').hidden = true
  $('shown').removeAttribute('src')
  $('choose').focus()
}

/** Which pictures can be looked at: the user's own, and what each model makes of it. */
export function showViews() {
  const views = page.chosen.flatMap((choice, column) =>
    choice && page.chosen.findIndex((one) => one?.model === choice.model && one.endpoint === choice.endpoint) === column
      ? [{ value: String(column), label: title(choice) }] : [])
  const group = $('view')
  group.replaceChildren(...[{ value: 'own', label: 'You' }, ...views].map(({ value, label }) => {
    const radio = document.createElement('wa-radio')
    radio.setAttribute('value', value)
    radio.setAttribute('appearance', 'button')
    radio.textContent = label
    return radio
  }))
  group.value = 'own'
  void look()
}

export async function look() {
  looking?.abort()
  const { picture } = page
  if (!picture) return
  const view = String($('view').value ?? 'own')
  const choice = view === 'own' ? null : page.chosen[Number(view)]
  problem($('picture-error'), '')
  const note = picture.note && `, ${picture.note}`
  show(picture.url, `Your picture ${picture.name}`, `${picture.name}, ${picture.width} × ${picture.height} pixels${note}`)
  if (!choice) return
  const control = looking = new AbortController()
  $('caption').textContent = `Asking ${title(choice)} what it sees…`
  try {
    const url = await pictures.dataUrl(await choice.endpoint.seen(choice.model, picture.url, control.signal))
    if (control.signal.aborted) return
    show(url, `The picture as ${title(choice)} sees it`, '')
    await $('shown').decode()
    const { naturalWidth: width, naturalHeight: height } = $('shown')
    $('shown').classList.toggle('coarse', width < 256)
    $('caption').textContent = `All that ${title(choice)} sees: ${width} × ${height} pixels`
    announcer.say($('caption').textContent)
  } catch (error) {
    if (control.signal.aborted) return
    const unknown = error instanceof Refused && [404, 405].includes(error.status) && !choice.endpoint.own
    $('view').value = 'own'
    show(picture.url, `Your picture ${picture.name}`, `${picture.name}, ${picture.width} × ${picture.height} pixels${note}`)
    problem($('picture-error'), unknown ? `${choice.endpoint.host} does not tell what its models see.` : words(error))
  }
}

/** @param {string} url @param {string} alt @param {string} caption */
function show(url, alt, caption) {
  const image = $('shown')
  image.classList.remove('coarse')
  image.src = url
  image.alt = alt
  $('caption').textContent = caption
}

export async function takePhotograph() {
  if (matchMedia('(pointer: coarse)').matches || !navigator.mediaDevices) {
    $('capture').click() // a phone brings its own camera app
    return
  }
  problem($('camera-error'), '')
  opened('camera', 'shutter')
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment', width: { ideal: 1920 } } })
    if (!$('camera').open) stopCamera(stream)
    $('video').srcObject = stream
  } catch (error) {
    const denied = error instanceof DOMException && error.name === 'NotAllowedError'
    problem($('camera-error'), denied
      ? 'The browser does not let this page use the camera; allow it beside the address, or choose a file.'
      : 'No camera can be used here; choose a file instead.')
  }
}

/** @param {MediaStream | null} stream */
export function stopCamera(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop()
  $('video').srcObject = null
}

/** Takes what the camera shows. */
export function shoot() {
  try {
    hold(pictures.photograph($('video')))
    $('camera').addEventListener('wa-after-hide', () => $('question').focus(), { once: true })
    $('camera').open = false
  } catch (error) {
    problem($('camera-error'), words(error))
  }
}

/** An example, with the question that goes with it. @param {string} path @param {string} question */
export async function takeExample(path, question) {
  const response = await fetch(path).catch(() => null)
  if (!response?.ok) {
    problem($('picture-error'), 'The server does not answer; check that it still runs, then try again.')
    return
  }
  await take(new File([await response.blob()], path.slice(path.lastIndexOf('/') + 1), { type: 'image/png' }))
  $('question').value = question
}
