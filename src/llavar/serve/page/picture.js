// @ts-check
/**
 * Pictures from files, the clipboard, a drop or the camera, made ready for a request.
 *
 * @typedef {{name: string, url: string, width: number, height: number, note: string}} Picture
 * `url` is a data URL; `note` says what was changed, if anything.
 */

const TAKEN = ['image/png', 'image/jpeg', 'image/webp', 'image/gif', 'image/bmp']
const MOST_BYTES = 10 * 2 ** 20
const MOST_PIXELS = 25e6
const LONGEST_SIDE = 3072

/** A file that cannot be used; the message is for the user. */
export class Unusable extends Error {}

/**
 * Opens a file. What servers take goes out as it is, byte for byte; a picture that is huge or of another kind
 * (HEIC where the browser knows it, AVIF, SVG) is drawn anew as JPEG, and `note` says so.
 * @param {File} file @returns {Promise<Picture>}
 */
export async function open(file) {
  if (!file.size) throw new Unusable(`${file.name} is empty; choose another file.`)
  const source = URL.createObjectURL(file)
  try {
    const image = await decoded(source, file)
    const { naturalWidth: width, naturalHeight: height } = image
    if (!width || !height) throw new Unusable(`${file.name} has no size of its own; choose a PNG or JPEG instead.`)
    if (TAKEN.includes(file.type) && file.size <= MOST_BYTES && width * height <= MOST_PIXELS) {
      return { name: file.name, url: await dataUrl(file), width, height, note: '' }
    }
    return redrawn(image, file.name)
  } finally {
    URL.revokeObjectURL(source)
  }
}

/** What the camera shows now. @param {HTMLVideoElement} video @returns {Picture} */
export function photograph(video) {
  const { videoWidth: width, videoHeight: height } = video
  if (!width) throw new Unusable('The camera shows nothing yet; wait a moment and try again.')
  return { name: 'photograph.jpg', url: drawn(video, width, height), width, height, note: '' }
}

/** The first picture among what was pasted or dropped. @param {DataTransfer | null} data @returns {File | null} */
export function carried(data) {
  const files = [...(data?.files ?? [])]
  return files.find((file) => file.type.startsWith('image/')) ?? files[0] ?? null
}

/** @param {string} source @param {File} file @returns {Promise<HTMLImageElement>} */
async function decoded(source, file) {
  const image = new Image()
  image.src = source
  try {
    await image.decode()
    return image
  } catch {
    throw new Unusable(`${file.name} is no picture that this browser can open; use PNG, JPEG, WebP or GIF.`)
  }
}

/** @param {HTMLImageElement} image @param {string} name @returns {Picture} */
function redrawn(image, name) {
  const { naturalWidth, naturalHeight } = image
  const scale = Math.min(1, LONGEST_SIDE / Math.max(naturalWidth, naturalHeight))
  const width = Math.max(1, Math.round(naturalWidth * scale))
  const height = Math.max(1, Math.round(naturalHeight * scale))
  const from = scale < 1 ? `reduced from ${naturalWidth} × ${naturalHeight} and ` : ''
  return { name, url: drawn(image, width, height), width, height, note: `${from}sent as JPEG` }
}

/** @param {CanvasImageSource} source @param {number} width @param {number} height */
function drawn(source, width, height) {
  const canvas = document.createElement('canvas')
  canvas.width = width
  canvas.height = height
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'))
  context.fillStyle = '#fff' // JPEG has no transparency
  context.fillRect(0, 0, width, height)
  context.drawImage(source, 0, 0, width, height)
  return canvas.toDataURL('image/jpeg', 0.92)
}

/** @param {Blob} blob @returns {Promise<string>} */
export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader()
    reader.onload = () => resolve(/** @type {string} */ (reader.result))
    reader.onerror = () => reject(new Unusable('The picture cannot be read; choose it again.'))
    reader.readAsDataURL(blob)
  })
}
