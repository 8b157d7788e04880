// @ts-check
/**
 * One server that speaks OpenAI's protocol: its models, streamed answers, and our extension /v1/seen.
 *
 * @typedef {{role: 'user' | 'assistant', content: string | object[]}} Message
 * @typedef {{temperature: number, maxTokens: number | null}} Options
 * @typedef {{text?: string, finish?: string, tokens?: number}} Piece
 */

/** The status where a server runs, but has no model ready. */
export const LOADING = 503

/** A request that failed, with the sentence of whoever refused it. */
export class Refused extends Error {
  /** @param {string} message @param {number} [status] the HTTP status; 0 where there was no answer at all */
  constructor(message, status = 0) {
    super(message)
    this.status = status
  }
}

export class Endpoint {
  /**
   * @param {string} base URL that ends in /v1
   * @param {string} key API key, or nothing
   * @param {typeof fetch} request `fetch` of a window whose policy allows this server
   * @param {boolean} own whether it is the server of this page
   */
  constructor(base, key = '', request = fetch.bind(window), own = true) {
    this.base = base.replace(/\/+$/, '')
    this.key = key
    this.request = request
    this.own = own
    /** @type {string[]} */
    this.names = []
  }

  /** What tells it from others. */
  get host() {
    return new URL(this.base).host
  }

  /** Fetches the names of its models. @param {AbortSignal} [signal] */
  async models(signal) {
    const document = await this.#json(await this.#send('/models', { signal }))
    const listed = Array.isArray(document?.data) ? document.data : []
    this.names = listed.map((/** @type {any} */ one) => one?.id).filter((/** @type {any} */ id) => typeof id === 'string')
    if (!this.names.length) throw new Refused(`${this.host} lists no models yet; they may still be loading.`, LOADING)
    return this.names
  }

  /**
   * The answer in pieces as they come. Ending the signal ends the answer on the server as well.
   * @param {string} model @param {Message[]} messages @param {Options} options @param {AbortSignal} signal
   * @returns {AsyncGenerator<Piece, void>}
   */
  async *answer(model, messages, options, signal) {
    const response = await this.#send('/chat/completions', { signal, body: body(model, messages, options, true) })
    if (!response.headers.get('content-type')?.startsWith('text/event-stream')) {
      yield* pieces(await this.#json(response))
      return
    }
    let finished = false
    for await (const data of events(response, signal)) {
      if (data === '[DONE]') return
      const document = parsed(data)
      if (document?.error) throw new Refused(sentence(document) ?? 'The server ended the answer with an error.')
      for (const piece of pieces(document)) {
        finished ||= piece.finish !== undefined
        yield piece
      }
    }
    if (!finished) throw new Refused('The answer broke off: the connection to the server was lost.')
  }

  /** The picture as `model` sees it. @param {string} model @param {string} url data URL @param {AbortSignal} [signal] */
  async seen(model, url, signal) {
    const response = await this.#send('/seen', { signal, body: { model, image_url: url } })
    return response.blob()
  }

  /** @param {string} path @param {{body?: object, signal?: AbortSignal}} options */
  async #send(path, { body, signal }) {
    /** @type {Record<string, string>} */
    const headers = body ? { 'Content-Type': 'application/json' } : {}
    if (/[^!-~]/.test(this.key)) throw new Refused('The API key holds characters that no request can carry; copy it again.')
    if (this.key) headers.Authorization = `Bearer ${this.key}`
    let response
    try {
      response = await this.request(this.base + path, {
        method: body ? 'POST' : 'GET', headers, signal, body: body && JSON.stringify(body), credentials: 'omit',
      })
    } catch (error) {
      if (signal?.aborted) throw error
      throw new Refused(this.own
        ? 'The server does not answer; check that it still runs, then try again.'
        : `The browser got no answer from ${this.host}: check the address, that the server runs, and that it `
          + `allows requests from ${location.origin} (CORS).`)
    }
    if (!response.ok) throw new Refused(await reason(response), response.status)
    return response
  }

  /** @param {Response} response */
  async #json(response) {
    const document = parsed(await response.text())
    if (document === null || typeof document !== 'object') {
      throw new Refused(`${this.base} answers, but not in OpenAI's protocol; most base URLs end in /v1.`)
    }
    return document
  }
}

/**
 * What a request of ours holds.
 * @param {string} model @param {Message[]} messages @param {Options} options @param {boolean} stream
 */
export function body(model, messages, options, stream) {
  return {
    model,
    messages,
    temperature: options.temperature,
    ...(options.maxTokens ? { max_tokens: options.maxTokens } : {}),
    ...(stream ? { stream: true, stream_options: { include_usage: true } } : {}),
  }
}

/** @param {any} document a chunk, or a whole completion @returns {Generator<Piece, void>} */
function* pieces(document) {
  const choice = document?.choices?.[0]
  const text = choice?.delta?.content ?? choice?.message?.content
  if (typeof text === 'string' && text) yield { text }
  if (typeof choice?.finish_reason === 'string') yield { finish: choice.finish_reason }
  if (Number.isInteger(document?.usage?.completion_tokens)) yield { tokens: document.usage.completion_tokens }
}

/**
 * The data of server-sent events.
 * @param {Response} response @param {AbortSignal} signal @returns {AsyncGenerator<string, void>}
 */
export async function* events(response, signal) {
  if (!response.body) return
  const reader = response.body.getReader()
  const decoder = new TextDecoder()
  let buffer = ''
  /** @type {string[]} */
  let data = []
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        if (signal.aborted) throw error
        return { done: true, value: undefined }
      })
      buffer += done ? decoder.decode() + '\n\n' : decoder.decode(value, { stream: true })
      const lines = buffer.split(/\r\n|\n|\r(?=.)/s)
      buffer = lines.pop() ?? ''
      for (const line of lines) {
        if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''))
        else if (!line && data.length) {
          yield data.join('\n')
          data = []
        }
      }
      if (done) return
    }
  } finally {
    reader.cancel().catch(() => {})
  }
}

/** @param {Response} response */
async function reason(response) {
  const text = await response.text().catch(() => '')
  return sentence(parsed(text)) ?? `The server answered ${response.status} without a reason.`
}

/** The sentence in the error documents of the servers there are. @param {any} document */
function sentence(document) {
  const found = [document?.error?.message, document?.message, document?.error, document?.detail]
  return found.find((one) => typeof one === 'string' && one.trim())
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/**
 * The server of this page may be asked by this page, and no other: so says its content security policy. For a
 * server that the user types in, an empty frame comes from our server with a policy that allows that one
 * origin, and requests are made by the frame's own `fetch`.
 * @param {string} typed @param {string} key
 * @returns {Promise<Endpoint>}
 */
export async function elsewhere(typed, key) {
  let url
  try {
    url = new URL(typed)
  } catch {
    throw new Refused(`"${typed}" is no URL; write one like http://127.0.0.1:8001/v1.`)
  }
  if (!/^https?:$/.test(url.protocol) || url.username || url.search || url.hash) {
    throw new Refused(`"${typed}" cannot be a base URL; write one like http://127.0.0.1:8001/v1.`)
  }
  if (url.origin === location.origin) return new Endpoint(url.href, key)
  const frame = document.createElement('iframe')
  frame.hidden = true
  frame.title = `Requests to ${url.host}`
  frame.src = `page/relay?to=${encodeURIComponent(url.origin)}`
  const loaded = new Promise((resolve) => frame.addEventListener('load', resolve, { once: true }))
  document.body.append(frame)
  await loaded
  const inner = /** @type {Window & typeof globalThis} */ (frame.contentWindow)
  return new Endpoint(url.href, key, inner.fetch.bind(inner), false)
}
