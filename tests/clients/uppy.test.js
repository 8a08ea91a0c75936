// Uppy's tus plugin in a browser, on a page of another origin than the server's.

import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import path from 'node:path';
import { after, before } from 'node:test';
import { servePage, startBrowser } from './harness/browser.js';
import { assertSentOnce, assertStored, file, IN_FLIGHT, MIB, onEveryStore } from './harness/scenario.js';

let site;
let browser;
before(async () => {
  site = await servePage();
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  site?.stop();
});

/** Files on disk, from where a person would pick them. */
async function pick(server, ...names) {
  const contents = new Map(names.map((name) => [name, file()]));
  const paths = names.map((name) => path.join(server.folder, name));
  for (const at of paths) await fs.writeFile(at, contents.get(path.basename(at)));
  return { contents, paths };
}

/** Opens the page on a profile of its own. */
async function open(context, proxy, options = {}) {
  const profile = await browser.newContext();
  context.after(() => profile.close());
  const tab = await profile.newPage();
  tab.on('pageerror', (error) => console.error(error));
  const query = new URLSearchParams({ endpoint: `${proxy.url}/files`, ...options });
  await tab.goto(`${site.url}?${query}`);
  return tab;
}

async function start(tab, paths) {
  await tab.setInputFiles('input', paths);
  await tab.click('button');
}

/**
 * What went up because the browser repeats a request by itself, the same one from its first byte, when a connection breaks
 * on which an earlier one was answered. No server can help it; this one refuses the repetition for its offset.
 */
function repeatedByBrowser(proxy) {
  const offset = ({ fields }) => fields['upload-offset'];
  const patches = proxy.of('PATCH');
  const repeated = patches.filter((one, index) => patches.slice(0, index).some((other) => offset(other) === offset(one)));
  return repeated.reduce((sum, { sent }) => sum + sent, 0);
}

async function result(tab) {
  await tab.waitForFunction(() => window.result);
  const { done, failed } = await tab.evaluate(() => window.result);
  assert.deepEqual(failed, []);
  return done;
}

onEveryStore('Uppy in Chromium', (scenario) => {
  for (const [name, options] of [['in one request', {}], ['in chunks', { chunkSize: 5 * MIB }]]) {
    scenario(`a file ${name}`, async ({ server, proxy, context }) => {
      const { contents, paths } = await pick(server, 'photo.bin');
      const tab = await open(context, proxy, options);
      await start(tab, paths);
      const [done] = await result(tab);
      const bytes = contents.get(done.name);
      await assertStored(server, { ...done, bytes });
      assertSentOnce(proxy, bytes, 0);
      assert.ok(proxy.of('OPTIONS').length > 0, 'the browser asked first');
    });
  }

  scenario('several files at once', async ({ server, proxy, context }) => {
    const { contents, paths } = await pick(server, 'one.bin', 'two.bin', 'drei größer.bin');
    const tab = await open(context, proxy);
    await start(tab, paths);
    const done = await result(tab);
    assert.equal(done.length, 3);
    for (const one of done) await assertStored(server, { ...one, bytes: contents.get(one.name) });
    assertSentOnce(proxy, Buffer.concat([...contents.values()]), 0);
  });

  scenario('connections that are cut, on a page that stays', async ({ server, proxy, context }) => {
    const { contents, paths } = await pick(server, 'photo.bin');
    for (const at of [3, 8]) proxy.at(at * MIB, (link) => link.cut());
    const tab = await open(context, proxy);
    await start(tab, paths);
    const [done] = await result(tab);
    const bytes = contents.get(done.name);
    await assertStored(server, { ...done, bytes });
    assertSentOnce(proxy, bytes, 2 * IN_FLIGHT + repeatedByBrowser(proxy));
    assert.equal(proxy.of('POST').length, 1);
  });

  scenario('a page that is reloaded goes on where it was', async ({ server, proxy, context }) => {
    const { contents, paths } = await pick(server, 'photo.bin');
    const tab = await open(context, proxy);
    const cut = proxy.at(5 * MIB, (link) => {
      proxy.down = true;
      link.cut();
    });
    await start(tab, paths);
    await cut;
    await tab.reload();
    proxy.down = false;
    const before = proxy.requests.length;
    await start(tab, paths);
    const [done] = await result(tab);
    const bytes = contents.get(done.name);
    assert.equal(new URL(done.url).pathname, proxy.of('PATCH')[0].path, 'it is the same upload');
    await assertStored(server, { ...done, bytes });
    assertSentOnce(proxy, bytes);
    const later = proxy.requests.slice(before).map(({ method }) => method);
    assert.deepEqual(later.filter((method) => ['POST', 'HEAD', 'PATCH'].includes(method)), ['HEAD', 'PATCH']);
  });
});
