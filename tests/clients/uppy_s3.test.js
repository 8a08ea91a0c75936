// Uppy's S3 plugin in a browser, on a page of another origin than the server's and the bucket's.

import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { servePage, startBrowser } from './harness/browser.js';
import { Proxy } from './harness/proxy.js';
import * as s3 from './harness/s3.js';
import { assertStored, file, IN_FLIGHT, MIB, sha256 } from './harness/scenario.js';
import { Server } from './harness/server.js';

const TIMEOUT_MS = 30_000;
/** The most that goes through the server of an upload whose parts go past it. */
const ASIDE = 64 << 10;

let site;
let browser;
before(async () => {
  site = await servePage('s3.js');
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  site?.stop();
});

/** A scenario with networks of its own between the page and the server, and between everyone and the bucket. */
function scenarios(kind, define) {
  const skip = kind === 's3' && !s3.available && 'JUMAR_TEST_S3_… is not set: run scripts/test, or scripts/dev-s3';
  if (skip) console.error(`!!! NOT TESTED: Uppy's S3 plugin on S3. ${skip}`);
  describe(`Uppy's S3 plugin in Chromium, on ${kind}`, { skip }, () => {
    let server;
    let bucket;
    before(async () => {
      const more = { server: { cors_origins: [site.origin] } };
      if (kind === 's3') {
        bucket = await Proxy.start(new URL(s3.settings('').endpoint).port);
        more['store.s3'] = { endpoint: bucket.url };
      }
      server = await Server.start(kind, more);
      if (kind === 's3') assert.match(await server.run('check', '--apply-cors'), /ok +store: apply CORS/);
    });
    after(async () => {
      await server?.stop();
      await bucket?.close();
    });
    define((name, run) => {
      test(name, { timeout: TIMEOUT_MS }, async (context) => {
        const proxy = await Proxy.start(server.port);
        context.after(() => proxy.close());
        const profile = await browser.newContext();
        context.after(() => profile.close());
        try {
          await run({ server, proxy, bucket, profile });
        } catch (error) {
          console.error(`${kind}: ${name}: the end of the server's log:\n${await server.log()}`);
          throw error;
        }
      });
    });
  });
}

/** Opens the page, picks a file and begins. */
async function begin({ server, proxy, profile }, bytes, multipart = true) {
  const at = path.join(server.folder, 'photo 1.bin');
  await fs.writeFile(at, bytes);
  const tab = await profile.newPage();
  tab.on('pageerror', (error) => console.error(error));
  await tab.goto(`${site.url}?${new URLSearchParams({ endpoint: proxy.url, multipart })}`);
  await tab.setInputFiles('input', at);
  await tab.click('button');
  return tab;
}

async function result(tab) {
  await tab.waitForFunction(() => window.result);
  return tab.evaluate(() => window.result);
}

async function done(tab) {
  const { done: [one], failed } = await result(tab);
  assert.deepEqual(failed, []);
  return one;
}

/** How many bytes went up to the bucket as parts of an upload. */
function put(bucket, id) {
  const parts = bucket.of('PUT').filter(({ path: at }) => at.includes(`/${id}?`));
  return parts.reduce((sum, { sent }) => sum + sent, 0);
}

function form(scenario) {
  scenario('a small file goes through the form', async (over) => {
    const { server, proxy } = over;
    const before = await server.objects();
    const bytes = file(MIB + 7);
    const tab = await begin(over, bytes, false);
    const { key } = await done(tab);
    assert.equal(key, 'photo 1.bin');
    const [object, ...more] = (await server.objects()).filter((one) => !before.includes(one));
    assert.deepEqual(more, []);
    const stored = await server.object(path.basename(object));
    assert.equal(sha256(stored), sha256(bytes));
    assert.deepEqual(proxy.of('POST').map(({ path: at }) => at), ['/v1/objects']);
  });
}

scenarios('s3', (scenario) => {
  form(scenario);

  for (const [name, size] of [['of three parts', 12 * MIB + 345], ['of one small part', 5]]) {
    scenario(`a file ${name}`, async (over) => {
      const { server, proxy, bucket } = over;
      const bytes = file(size);
      const tab = await begin(over, bytes);
      const { key, url } = await done(tab);
      await assertStored(server, { id: key, url, bytes });
      assert.equal(put(bucket, key), bytes.length, 'parts went to the bucket, each once');
      assert.ok(proxy.sent < ASIDE, `${proxy.sent} bytes went through the server`);
    });
  }

  scenario('a connection to the bucket that is cut', async (over) => {
    const { server, bucket } = over;
    const bytes = file();
    const cut = bucket.at(bucket.sent + 7 * MIB, (link) => link.cut());
    const tab = await begin(over, bytes);
    await cut;
    const { key, url } = await done(tab);
    await assertStored(server, { id: key, url, bytes });
    const again = put(bucket, key) - bytes.length;
    assert.ok(again > 0 && again <= 2 * MIB + IN_FLIGHT, `${again} bytes: of the second part alone`);
  });

  scenario('a pause in the middle', async (over) => {
    const { server, proxy, bucket } = over;
    const bytes = file();
    let tab;
    const paused = bucket.at(bucket.sent + 7 * MIB, () => tab.evaluate(() => window.uppy.pauseAll()));
    tab = await begin(over, bytes);
    await paused;
    await tab.evaluate(() => window.uppy.resumeAll());
    const { key, url } = await done(tab);
    await assertStored(server, { id: key, url, bytes });
    const listed = proxy.of('GET').filter(({ path }) => /^\/s3\/multipart\/[^/]+\?/.test(path));
    assert.equal(listed.length, 1, 'it asked which parts are there');
    const signed = proxy.of('GET').map(({ path }) => path.match(/^\/s3\/multipart\/[^/]+\/(\d+)\?/)?.[1]);
    // The second part had arrived whole if its end was on its way when the browser let go of it.
    assert.match(signed.filter(Boolean).join(), /^1,2,(2,)?3$/, 'the first part went once');
  });

  scenario('an upload that is cancelled leaves nothing', async (over) => {
    const { server, proxy, bucket } = over;
    let tab;
    const objects = await server.objects();
    const cancelled = bucket.at(bucket.sent + 7 * MIB, () => tab.evaluate(() => window.uppy.cancelAll()));
    tab = await begin(over, file());
    await cancelled;
    while (proxy.of('DELETE').length === 0 || (await s3.open(`${server.prefix}/`)).length > 0) await sleep(50);
    assert.deepEqual(await server.objects(), objects);
  });
});

scenarios('fs', (scenario) => {
  form(scenario);

  scenario('parts are refused where there is no bucket', async (over) => {
    const tab = await begin(over, file(5));
    const { done: none, failed } = await result(tab);
    assert.deepEqual(none, []);
    assert.match(failed[0], /Companion request failed/);
  });
});
