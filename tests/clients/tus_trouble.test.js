// tus-js-client over tus: pauses, networks that break, servers that die. What arrived is never sent again.

import assert from 'node:assert/strict';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { FileUrlStorage } from 'tus-js-client';
import { assertSentOnce, assertStored, file, IN_FLIGHT, MIB, onEveryStore } from './harness/scenario.js';
import { client, send } from './harness/tus.js';

/** How long a client that comes back waits for its offset. */
const HEAD_WITHIN_MS = 1000;

onEveryStore('tus-js-client in trouble', (scenario) => {
  scenario('paused and resumed', async ({ server, proxy }) => {
    const bytes = file();
    const upload = client(bytes, { endpoint: `${proxy.url}/files` });
    proxy.at(5 * MIB, () => upload.upload.abort()).then(() => setTimeout(upload.run, 200));
    const done = await upload.run();
    await assertStored(server, { ...done, bytes });
    assertSentOnce(proxy, bytes);
    assert.equal(proxy.of('POST').length, 1);
    assert.equal(proxy.of('PATCH').length, 2);
  });

  for (const how of ['cut', 'reset']) {
    scenario(`connections that are ${how} in the middle of bodies`, async ({ server, proxy }) => {
      const bytes = file();
      for (const at of [1, 4, 4.5, 9]) proxy.at(at * MIB, (link) => link[how]());
      const upload = client(bytes, { endpoint: `${proxy.url}/files` });
      const done = await upload.run();
      await assertStored(server, { ...done, bytes });
      assert.equal(proxy.of('POST').length, 1, 'it never started anew');
      const offsets = upload.answers.filter(({ method }) => method === 'HEAD').map(({ offset }) => offset);
      assert.equal(offsets.length, 4);
      assert.deepEqual(offsets, offsets.toSorted((a, b) => a - b), 'an offset never goes back');
      // A reset throws away what the kernel had, and that may be all.
      if (how === 'cut') assertSentOnce(proxy, bytes, 4 * IN_FLIGHT);
    });
  }

  scenario('the last answer is lost', async ({ server, proxy }) => {
    const bytes = file();
    proxy.at(bytes.length - 1, (link) => link.loseAnswer());
    const done = await send(bytes, { endpoint: `${proxy.url}/files` });
    await assertStored(server, { ...done, bytes });
    assertSentOnce(proxy, bytes, 0);
    assert.equal(proxy.of('POST').length, 1);
  });

  scenario('a connection that hangs half-open, and a new client', async ({ server, proxy }) => {
    const bytes = file();
    const first = client(bytes, { endpoint: `${proxy.url}/files` });
    const hung = proxy.at(5 * MIB, (link) => link.hang());
    first.run();
    await hung;
    const second = client(bytes, { endpoint: `${proxy.url}/files`, uploadUrl: first.upload.url });
    const done = await second.run();
    await assertStored(server, { url: done.url, id: first.answers[0].id, bytes });
    // On a busy machine some of what the kernel had is not read before the newcomer is answered.
    assertSentOnce(proxy, bytes, 4 * IN_FLIGHT);
    const [asked] = second.answers;
    assert.equal(asked.method, 'HEAD');
    assert.ok(asked.ms < HEAD_WITHIN_MS, `HEAD took ${asked.ms} ms`);
  });

  scenario('a server that is killed and started again', async ({ server, proxy }) => {
    const bytes = file();
    const chunkSize = MIB;
    proxy.at(5.5 * MIB, () => server.kill()).then(() => server.launch());
    const done = await send(bytes, { endpoint: `${proxy.url}/files`, chunkSize });
    await assertStored(server, { ...done, bytes });
    assertSentOnce(proxy, bytes, chunkSize);
    assert.equal(proxy.of('POST').length, 1);
  });

  scenario('parts in parallel, given up and resumed from stored URLs', async ({ server, proxy }) => {
    const bytes = file(24 * MIB + 345);
    const urlStorage = new FileUrlStorage(path.join(server.folder, 'urls.json'));
    const options = {
      endpoint: `${proxy.url}/files`,
      parallelUploads: 3,
      urlStorage,
      fingerprint: async () => 'the file',
    };
    const first = client(bytes, options);
    const aborted = proxy.at(12 * MIB, async () => {
      while ((await urlStorage.findAllUploads()).length === 0) await sleep(10);
      await first.upload.abort();
    });
    first.run();
    await aborted;
    const second = client(bytes, options);
    const previous = await second.upload.findPreviousUploads();
    assert.equal(previous.length, 1);
    assert.equal(previous[0].parallelUploadUrls.length, 3);
    second.upload.resumeFromPreviousUpload(previous[0]);
    const done = await second.run();
    await assertStored(server, { ...done, bytes });
    assertSentOnce(proxy, bytes, 3 * IN_FLIGHT);
    assert.equal(proxy.of('POST').length, 4, 'three parts and what they make, each created once');
  });

  scenario('given up for good', async ({ proxy }) => {
    const upload = client(file(), { endpoint: `${proxy.url}/files` });
    const terminated = proxy.at(5 * MIB, () => upload.upload.abort(true));
    upload.run();
    await terminated;
    const answer = await fetch(upload.upload.url, { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0' } });
    assert.ok([404, 410].includes(answer.status), `HEAD says ${answer.status}`);
    assert.equal(answer.headers.get('upload-offset'), null);
  });
});
