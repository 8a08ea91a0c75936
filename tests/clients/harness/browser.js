// Headless Chromium, and the page with Uppy, served from an origin of its own.

import { build } from 'esbuild';
import fs from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { target } from './server.js';

const page = fileURLToPath(new URL('../page/', import.meta.url));

const FLAGS = [
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Serves the page with a script from its folder: its URL, its origin, and a call that stops it. */
export async function servePage(name = 'page.js') {
  const script = path.join(target, name);
  await build({ entryPoints: [path.join(page, name)], outfile: script, bundle: true, format: 'esm' });
  const files = {
    '/': [path.join(page, 'index.html'), 'text/html'],
    '/page.js': [script, 'text/javascript'],
  };
  const listener = http.createServer(async ({ url }, response) => {
    const [file, type] = files[new URL(url, 'http://page').pathname] ?? [];
    if (!file) return response.writeHead(404).end();
    return response.writeHead(200, { 'content-type': type }).end(await fs.readFile(file));
  });
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const stop = () => {
    listener.closeAllConnections();
    listener.close();
  };
  const origin = `http://127.0.0.1:${listener.address().port}`;
  return { url: `${origin}/`, origin, stop };
}

/** Starts the browser with an empty profile. */
export function startBrowser() {
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  return chromium.launch({ executablePath, args: FLAGS, chromiumSandbox: process.getuid() !== 0 });
}
