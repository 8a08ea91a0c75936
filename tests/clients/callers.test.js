// Clients with tokens, on a server that asks for them and lets a device have two uploads open at once.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import path from 'node:path';
import { after, before } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { FileUrlStorage } from 'tus-js-client';
import { servePage, startBrowser } from './harness/browser.js';
import { assertSentOnce, assertStored, file, MIB, onEveryStore, sha256 } from './harness/scenario.js';
import { client, send } from './harness/tus.js';

const OPEN_PER_DEVICE = 2;

const more = {
  auth: { mode: 'required' },
  'auth.join': { secret: randomBytes(32).toString('hex') },
  'spaces.default': { open_per_device: OPEN_PER_DEVICE },
};

let tusPage;
let s3Page;
let browser;
before(async () => {
  [tusPage, s3Page, browser] = await Promise.all([servePage(), servePage('s3.js'), startBrowser()]);
});
after(async () => {
  await browser?.close();
  tusPage?.stop();
  s3Page?.stop();
});

const lastLine = (text) => text.trim().split('\n').at(-1);

const join = async (server, ...more) => lastLine(await server.run('token', 'join', ...more));

const bearer = (token) => ({ Authorization: `Bearer ${token}` });

const idOf = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).jti;

async function ask(server, at, token) {
  const answer = await fetch(`http://127.0.0.1:${server.port}${at}`, { headers: bearer(token) });
  assert.equal(answer.status, 200, at);
  return answer.json();
}

/** Asks again and again how many uploads of a guest are open, past the network of the test; `stop()` tells the most. */
function watch(server, token) {
  let most = 0;
  let watching = true;
  const ended = (async () => {
    while (watching) {
      const { limits } = await ask(server, '/v1/quota', token);
      const { used, allowed } = limits.find(({ limit }) => limit === 'open_per_device');
      assert.equal(allowed, OPEN_PER_DEVICE);
      most = Math.max(most, used);
      await sleep(10);
    }
    return most;
  })();
  ended.catch(() => {});
  return () => {
    watching = false;
    return ended;
  };
}

/** The store has one object for each of these contents, and nothing else that was not there before. */
async function assertAllStored(server, before, contents) {
  const keys = (await server.objects()).filter((key) => !before.includes(key));
  const stored = await Promise.all(keys.map(async (key) => sha256(await server.object(path.basename(key)))));
  assert.deepEqual(stored.toSorted(), contents.map(sha256).toSorted());
}

/** Opens a page on a profile of its own, picks the files and begins. */
async function begin({ server, context }, page, query, contents) {
  const paths = contents.map((_, index) => path.join(server.folder, `photo ${index}.bin`));
  await Promise.all(paths.map((at, index) => fs.writeFile(at, contents[index])));
  const profile = await browser.newContext();
  context.after(() => profile.close());
  const tab = await profile.newPage();
  tab.on('pageerror', (error) => console.error(error));
  await tab.goto(`${page.url}?${new URLSearchParams(query)}`);
  await tab.setInputFiles('input', paths);
  await tab.click('button');
  return tab;
}

async function result(tab) {
  await tab.waitForFunction(() => window.result, undefined, { timeout: 0 });
  return tab.evaluate(() => window.result);
}

onEveryStore('clients with tokens', (scenario) => {
  scenario('tus-js-client with parts in parallel, four files at once', async ({ server, proxy, context }) => {
    const token = await join(server);
    const contents = Array.from({ length: 4 }, () => file(6 * MIB + 345));
    const stop = watch(server, token);
    const options = { endpoint: `${proxy.url}/files`, headers: bearer(token), parallelUploads: 3 };
    const done = await Promise.all(contents.map((bytes) => send(bytes, options)));
    const most = await stop();
    for (const [index, { id }] of done.entries()) await assertStored(server, { id, bytes: contents[index] });
    assertSentOnce(proxy, Buffer.concat(contents), 0);
    const posts = proxy.of('POST').length;
    context.diagnostic(`${posts} POSTs, at most ${most} open`);
    assert.ok(most <= OPEN_PER_DEVICE, `${most} were open`);
    assert.equal(posts, 4 * 4, 'three parts and what they make, each created once');
  });

  scenario("Uppy's tus plugin with twenty files at once", async ({ server, proxy, context }) => {
    const token = await join(server);
    const contents = Array.from({ length: 20 }, () => file(MIB + 345));
    const before = await server.objects();
    const stop = watch(server, token);
    const tab = await begin({ server, context }, tusPage, { endpoint: `${proxy.url}/files`, token }, contents);
    const { done, failed } = await result(tab);
    const most = await stop();
    const posts = proxy.of('POST').length;
    context.diagnostic(`${posts} POSTs, at most ${most} open`);
    assert.deepEqual(failed, []);
    assert.equal(done.length, contents.length);
    await assertAllStored(server, before, contents);
    assert.ok(most <= OPEN_PER_DEVICE, `${most} were open`);
    assert.ok(posts <= 2 * contents.length, `${posts} POSTs for 20 files`);
  });

  scenario("Uppy's S3 plugin has no option for a token", async ({ server, proxy, context }) => {
    const token = await join(server);
    const query = { endpoint: proxy.url, token, how: 'options', multipart: server.kind === 's3' };
    const { done, failed } = await result(await begin({ server, context }, s3Page, query, [file(5)]));
    assert.deepEqual(done, []);
    assert.match(failed[0], /Companion request failed: Unauthorized/);
    assert.ok(proxy.requests.every(({ fields }) => !fields.authorization));
  });

  scenario("Uppy's S3 plugin with forms that its signRequest tells of", async ({ server, proxy, context }) => {
    const token = await join(server);
    const contents = Array.from({ length: 5 }, () => file(MIB + 7));
    const before = await server.objects();
    const stop = watch(server, token);
    const query = { endpoint: proxy.url, token, how: 'sign', multipart: false };
    const { done, failed } = await result(await begin({ server, context }, s3Page, query, contents));
    const most = await stop();
    const posts = proxy.of('POST').length;
    context.diagnostic(`${posts} POSTs, at most ${most} open`);
    assert.deepEqual(failed, []);
    assert.equal(done.length, contents.length);
    await assertAllStored(server, before, contents);
    assert.ok(most <= OPEN_PER_DEVICE, `${most} were open`);
    assert.equal(posts, contents.length);
  });

  scenario("Uppy's S3 plugin with parts, behind a fetch that adds the token", async ({ server, proxy, context }) => {
    if (server.kind !== 's3') return context.skip('parts go to a bucket');
    assert.match(await server.run('check', '--apply-cors'), /ok +store: apply CORS/);
    const token = await join(server);
    const contents = Array.from({ length: 5 }, () => file(6 * MIB + 7));
    const stop = watch(server, token);
    const query = { endpoint: proxy.url, token, how: 'fetch', multipart: true };
    const { done, failed } = await result(await begin({ server, context }, s3Page, query, contents));
    const most = await stop();
    const posts = proxy.of('POST').length;
    context.diagnostic(`${posts} POSTs, at most ${most} open`);
    assert.deepEqual(failed, []);
    const stored = await Promise.all(done.map(async ({ key }) => sha256(await server.object(key))));
    assert.deepEqual(stored.toSorted(), contents.map(sha256).toSorted());
    assert.ok(most <= OPEN_PER_DEVICE, `${most} were open`);
    assert.equal(posts, 2 * contents.length, 'one to create, one to complete');
  });

  scenario('a token that is revoked in the middle, and a renewed one', async ({ server, proxy, context }) => {
    const token = await join(server, '--subject', 'guest');
    const bytes = file();
    const urlStorage = new FileUrlStorage(path.join(server.folder, 'urls.json'));
    const options = {
      endpoint: `${proxy.url}/files`,
      chunkSize: MIB,
      urlStorage,
      fingerprint: async () => 'the file',
    };
    let revoked = false;
    const first = client(bytes, {
      ...options,
      headers: bearer(token),
      onBeforeRequest: async (request) => {
        if (revoked || Number(request.getHeader('Upload-Offset')) !== 5 * MIB) return;
        revoked = true;
        await server.run('token', 'revoke', idOf(token));
      },
    });
    await assert.rejects(first.run(), (error) => [401, 403].includes(error.originalResponse?.getStatus()));
    assert.ok(revoked);
    const refused = first.answers.filter(({ status }) => status >= 400).map(({ method, status }) => `${method} ${status}`);
    context.diagnostic(`refused: ${refused.join(', ')}`);
    assert.deepEqual(refused, ['PATCH 401']);
    const head = await fetch(first.upload.url, { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0' } });
    assert.equal(head.status, 200);
    assert.equal(head.headers.get('upload-offset'), String(5 * MIB));

    const refusedBody = proxy.of('PATCH').at(-1).sent;
    const second = client(bytes, { ...options, headers: bearer(await join(server, '--subject', 'guest')) });
    const [previous] = await second.upload.findPreviousUploads();
    assert.equal(previous.uploadUrl, first.upload.url);
    second.upload.resumeFromPreviousUpload(previous);
    await second.run();
    await assertStored(server, { id: first.answers[0].id, bytes });
    assertSentOnce({ sent: proxy.sent - refusedBody }, bytes, 0);
    assert.equal(proxy.of('POST').length, 1);
  });

  scenario("a client of the IETF's resumable uploads", async ({ server, proxy }) => {
    const token = await join(server);
    const bytes = file();
    const options = { endpoint: `${proxy.url}/resumable`, protocol: 'ietf-draft-05', headers: bearer(token) };
    await assert.rejects(send(bytes, { ...options, headers: {}, retryDelays: null }), /401/);
    proxy.sent = 0;
    const done = await send(bytes, { ...options, chunkSize: 5 * MIB });
    await assertStored(server, { id: done.id, bytes });
    assertSentOnce(proxy, bytes, 0);
  });
}, more);
