// Makes webawesome.js, webawesome.css and LICENSES.txt; README.md has the command.
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const here = path.dirname(fileURLToPath(import.meta.url))
const modules = path.resolve('node_modules')
const esbuild = createRequire(path.join(modules, 'x.js'))('esbuild')

// The library's own icons (Font Awesome) would be 45 kB and, in part, come from a CDN. These stubs take
// their place and point at the page's own sprite, icons.svg beside the page's scripts.
const stub = (name) => `
const library = { name: ${JSON.stringify(name)}, spriteSheet: true,
  resolver: (icon) => new URL('../icons.svg', import.meta.url).href + '#' + icon,
  mutator: (svg) => svg.setAttribute('viewBox', '0 0 24 24') };
export const icons = {};
export { library as ${name === 'system' ? 'library_system_default' : 'library_default_default'} };
export function getIconFolder() { return '' }
`
const ownIcons = {
  name: 'own-icons',
  setup(build) {
    build.onLoad({ filter: /webawesome\/dist\/chunks\/.*\.js$/ }, ({ path: file }) => {
      const text = fs.readFileSync(file, 'utf8')
      if (text.includes('// src/components/icon/library.system.ts')) return { contents: stub('system') }
      if (text.includes('// src/components/icon/library.default.ts')) return { contents: stub('default') }
    })
  },
}

const shared = { bundle: true, minify: true, legalComments: 'none', nodePaths: [modules], logLevel: 'warning' }
const result = await esbuild.build({
  ...shared, entryPoints: [path.join(here, 'entry.mjs')], outfile: path.join(here, 'webawesome.js'),
  format: 'esm', target: 'es2022', metafile: true, plugins: [ownIcons],
  banner: { js: '// @ts-nocheck\n/* Web Awesome and what it builds on; licences in LICENSES.txt */' },
})
await esbuild.build({
  ...shared, outfile: path.join(here, 'webawesome.css'),
  entryPoints: [path.join(modules, '@awesome.me/webawesome/dist/styles/themes/default.css')],
  banner: { css: '/* Web Awesome; licence in LICENSES.txt */' },
})

const packages = new Set()
for (const file of Object.keys(result.metafile.outputs[Object.keys(result.metafile.outputs)[0]].inputs)) {
  const name = file.match(/.*node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]
  if (name) packages.add(name)
}
const texts = [...packages].sort().map((name) => {
  const root = path.join(modules, name)
  const { version, license } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'))
  const file = fs.readdirSync(root).find((f) => /^licen[cs]e/i.test(f))
  const text = file ? fs.readFileSync(path.join(root, file), 'utf8').trim() : `(${license})`
  return `${name} ${version} (${license})\n${'-'.repeat(60)}\n${text}\n`
})
fs.writeFileSync(path.join(here, 'LICENSES.txt'), texts.join('\n\n'))
