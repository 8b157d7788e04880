// @ts-check
/**
 * A request as code that others can run. The picture is read from its file, never written into the code.
 *
 * @typedef {{base: string, model: string, messages: import('./endpoint.js').Message[],
 *   options: import('./endpoint.js').Options, file: string | null, type: string, key: boolean}} Asked
 * `messages` hold `PICTURE` where the data URL stands; `key` is whether the server wants one.
 */

import { body } from './endpoint.js'

/** Stands for the data URL in messages; no question can hold it, since it is no character. */
export const PICTURE = '\uFFFEpicture\uFFFE'

/** @param {Asked} asked */
export function curl({ base, model, messages, options, file, type, key }) {
  const document = written(body(model, messages, options, false), 0, 2, JSON.stringify(PICTURE))
  // Inside a here-document without quotes, the shell reads dollars, backticks and backslashes.
  const escaped = document.replace(/[\\$`]/g, '\\$&')
  const data = escaped.replaceAll(PICTURE, () => `data:${type};base64,$(base64 < ${quoted(file ?? '')} | tr -d '\\n')`)
  const end = ending(data)
  return [
    `curl ${quoted(`${base}/chat/completions`)}`,
    "-H 'Content-Type: application/json'",
    ...(key ? ['-H "Authorization: Bearer $OPENAI_API_KEY"'] : []),
    `--data-binary @- <<${end}\n${data}\n${end}\n`,
  ].join(' \\\n  ')
}

/** @param {Asked} asked */
export function python({ base, model, messages, options, file, type, key }) {
  const picture = file === null ? '' : `\nwith open(${literal(file)}, "rb") as file:\n    picture = "data:${type};base64," + base64.b64encode(file.read()).decode()\n`
  const imports = [file !== null && 'import base64', key && 'import os'].filter(Boolean).join('\n')
  const turns = messages.map((message) => `        ${written(message, 8, 4, 'picture')},\n`).join('')
  const limit = options.maxTokens ? `\n    max_tokens=${options.maxTokens},` : ''
  return `${imports ? `${imports}\n\n` : ''}from openai import OpenAI

client = OpenAI(base_url=${literal(base)}, api_key=${key ? 'os.environ["OPENAI_API_KEY"]' : '"none"'})
${picture}
answer = client.chat.completions.create(
    model=${literal(model)},
    messages=[
${turns}    ],
    temperature=${options.temperature},${limit}
)
print(answer.choices[0].message.content)
`
}

/**
 * A value as JSON, which is Python as well for texts, numbers, lists and dictionaries; on one line where it is
 * short.
 * @param {any} json @param {number} indent @param {number} step by which it grows
 * @param {string} picture what stands for the data URL
 * @returns {string}
 */
function written(json, indent, step, picture) {
  if (json === PICTURE) return picture
  if (json === null || typeof json !== 'object') return JSON.stringify(json)
  const pad = ' '.repeat(indent + step)
  const parts = Array.isArray(json)
    ? json.map((one) => written(one, indent + step, step, picture))
    : Object.entries(json).map(([name, one]) => `${literal(name)}: ${written(one, indent + step, step, picture)}`)
  const [open, close] = Array.isArray(json) ? '[]' : '{}'
  const line = open + parts.join(', ') + close
  if (line.length + indent <= 84 && !line.includes('\n')) return line
  return `${open}\n${parts.map((part) => pad + part).join(',\n')}\n${' '.repeat(indent)}${close}`
}

/** A text as Python writes it: JSON's escapes mean the same there. @param {string} text */
function literal(text) {
  return JSON.stringify(text)
}

/** A text for a POSIX shell. @param {string} text */
function quoted(text) {
  return /^[\w./:@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}

/** A line that does not occur in the data. @param {string} data */
function ending(data) {
  let end = 'END'
  while (data.split('\n').includes(end)) end += '_'
  return end
}
