// tus-js-client over tus: what it can do, on a network that does not fail.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import path from 'node:path';
import { Readable } from 'node:stream';
import { FileUrlStorage } from 'tus-js-client';
import { assertSentOnce, assertStored, file, MIB, onEveryStore } from './harness/scenario.js';
import { client, send } from './harness/tus.js';

const head = (url) => fetch(url, { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0' } });

onEveryStore('tus-js-client', (scenario) => {
  for (const [name, chunkSize] of [['in one request', Infinity], ['in chunks', MIB]]) {
    scenario(`a file ${name}`, async ({ server, proxy }) => {
      const bytes = file();
      const upload = client(bytes, { endpoint: `${proxy.url}/files`, chunkSize });
      const done = await upload.run();
      await assertStored(server, { ...done, bytes });
      assertSentOnce(proxy, bytes, 0);
      assert.equal(upload.answers.at(-1).id, done.id, 'Upload-Id of the final answer');
      assert.equal(proxy.of('PATCH').length, chunkSize === MIB ? 13 : 1);
    });
  }

  scenario('an empty file', async ({ server, proxy }) => {
    const bytes = Buffer.alloc(0);
    const done = await send(bytes, { endpoint: `${proxy.url}/files` });
    await assertStored(server, { ...done, bytes });
    assert.deepEqual(proxy.requests.slice(0, -1).map(({ method }) => method), ['POST']);
  });

  scenario('data with the creation', async ({ server, proxy }) => {
    const bytes = file();
    const done = await send(bytes, {
      endpoint: `${proxy.url}/files`,
      chunkSize: 5 * MIB,
      uploadDataDuringCreation: true,
    });
    await assertStored(server, { ...done, bytes });
    assert.equal(proxy.of('POST')[0].sent, 5 * MIB);
    assertSentOnce(proxy, bytes, 0);
  });

  scenario('a whole file with the creation', async ({ server, proxy }) => {
    const bytes = file();
    const done = await send(bytes, { endpoint: `${proxy.url}/files`, uploadDataDuringCreation: true });
    await assertStored(server, { ...done, bytes });
    assert.equal(proxy.of('PATCH').length, 0);
  });

  // No round size: this client never ends a stream whose length is a multiple of its chunk's.
  scenario('a stream whose length is told at its end', async ({ server, proxy }) => {
    const bytes = file();
    const done = await send(Readable.from([bytes], { objectMode: false }), {
      endpoint: `${proxy.url}/files`,
      chunkSize: MIB,
      uploadLengthDeferred: true,
    });
    await assertStored(server, { ...done, bytes });
    assert.equal(proxy.of('POST')[0].fields['upload-defer-length'], '1');
    assert.equal(proxy.of('PATCH').at(-1).fields['upload-length'], String(bytes.length));
  });

  scenario('parts in parallel', async ({ server, proxy }) => {
    const bytes = file(24 * MIB + 345);
    const done = await send(bytes, {
      endpoint: `${proxy.url}/files`,
      chunkSize: 3 * MIB,
      parallelUploads: 3,
      metadata: { filename: 'whole.bin' },
      metadataForPartialUploads: { part: 'yes' },
    });
    await assertStored(server, { ...done, bytes });
    assertSentOnce(proxy, bytes, 0);
    const answer = await head(done.url);
    assert.match(answer.headers.get('upload-concat'), /^final;/);
    assert.equal(answer.headers.get('upload-length'), String(bytes.length));
  });

  scenario('POST in place of PATCH', async ({ server, proxy }) => {
    const bytes = file();
    const done = await send(bytes, {
      endpoint: `${proxy.url}/files`,
      chunkSize: 5 * MIB,
      overridePatchMethod: true,
    });
    await assertStored(server, { ...done, bytes });
    assert.equal(proxy.of('PATCH').length, 0);
    assert.equal(proxy.of('POST').length, 4);
  });

  scenario('metadata comes back as it was given', async ({ server, proxy }) => {
    const bytes = file(MIB);
    const metadata = { filename: 'Übung “1”, größer.txt', filetype: 'text/plain', empty: '' };
    const done = await send(bytes, { endpoint: `${proxy.url}/files`, metadata });
    await assertStored(server, { ...done, bytes });
    const answer = await head(done.url);
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get('upload-metadata'), proxy.of('POST')[0].fields['upload-metadata']);
    assert.equal(answer.headers.get('upload-offset'), String(bytes.length));
  });

  for (const algorithm of ['sha1', 'sha256', 'md5']) {
    scenario(`chunks with their ${algorithm}, one of them wrong`, async ({ server, proxy }) => {
      const bytes = file();
      const chunkSize = 5 * MIB;
      let wrong = true;
      const upload = client(bytes, {
        endpoint: `${proxy.url}/files`,
        chunkSize,
        onShouldRetry: () => true,
        onBeforeRequest: (request) => {
          if (request.getMethod() !== 'PATCH') return;
          const offset = Number(request.getHeader('Upload-Offset'));
          const digest = createHash(algorithm).update(bytes.subarray(offset, offset + chunkSize)).digest();
          if (offset === chunkSize && wrong) {
            wrong = false;
            digest[0] ^= 1;
          }
          request.setHeader('Upload-Checksum', `${algorithm} ${digest.toString('base64')}`);
        },
      });
      const done = await upload.run();
      await assertStored(server, { ...done, bytes });
      const statuses = upload.answers.map(({ method, status }) => `${method} ${status}`);
      assert.deepEqual(statuses, ['POST 201', 'PATCH 204', 'PATCH 460', 'HEAD 200', 'PATCH 204', 'PATCH 204']);
      assert.equal(upload.answers[3].offset, chunkSize, 'nothing of the wrong chunk counts');
    });
  }

  scenario('a URL that is remembered until the upload is done', async ({ server, proxy }) => {
    const urlStorage = new FileUrlStorage(path.join(server.folder, 'urls.json'));
    const bytes = file();
    let during;
    const done = await send(bytes, {
      endpoint: `${proxy.url}/files`,
      chunkSize: 5 * MIB,
      urlStorage,
      fingerprint: async () => 'the file',
      removeFingerprintOnSuccess: true,
      onChunkComplete: async () => {
        during ??= await urlStorage.findAllUploads();
      },
    });
    await assertStored(server, { ...done, bytes });
    assert.deepEqual(during.map(({ uploadUrl }) => uploadUrl), [done.url]);
    assert.deepEqual(await urlStorage.findAllUploads(), []);
  });
});
