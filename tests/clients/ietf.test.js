// tus-js-client over the IETF's resumable uploads, in the two drafts that it speaks.

import assert from 'node:assert/strict';
import { assertSentOnce, assertStored, file, IN_FLIGHT, MIB, onEveryStore, sha256 } from './harness/scenario.js';
import { client, send } from './harness/tus.js';

/** The final answer names the object, and the store has it. */
async function assertCompleted(server, done, bytes) {
  const { upload_id: id, object } = JSON.parse(done.body);
  assert.equal(object.size, bytes.length);
  assert.equal(object.digest['sha-256'], sha256(bytes));
  assert.equal(done.id, id, 'Upload-Id of the creation');
  await assertStored(server, { id, bytes });
}

for (const [protocol, version] of [['ietf-draft-03', '5'], ['ietf-draft-05', '6']]) {
  onEveryStore(`tus-js-client by ${protocol}`, (scenario) => {
    for (const [name, chunkSize] of [['in one request', Infinity], ['in chunks', MIB]]) {
      scenario(`a file ${name}`, async ({ server, proxy }) => {
        const bytes = file();
        const done = await send(bytes, { endpoint: `${proxy.url}/resumable`, protocol, chunkSize });
        await assertCompleted(server, done, bytes);
        assertSentOnce(proxy, bytes, 0);
        const patches = proxy.of('PATCH');
        assert.equal(patches.length, chunkSize === MIB ? 13 : 1);
        assert.equal(patches[0].fields['upload-draft-interop-version'], version);
        assert.equal(patches.at(-1).fields['upload-complete'], '?1');
      });
    }

    scenario('a whole file with the creation', async ({ server, proxy }) => {
      const bytes = file();
      const endpoint = `${proxy.url}/resumable`;
      const done = await send(bytes, { endpoint, protocol, uploadDataDuringCreation: true });
      await assertCompleted(server, done, bytes);
      assert.deepEqual(proxy.requests.map(({ method }) => method), ['POST']);
    });

    scenario('connections that are cut in the middle of bodies', async ({ server, proxy }) => {
      const bytes = file();
      for (const at of [1, 4, 4.5, 9]) proxy.at(at * MIB, (link) => link.cut());
      const done = await send(bytes, { endpoint: `${proxy.url}/resumable`, protocol });
      await assertCompleted(server, done, bytes);
      assertSentOnce(proxy, bytes, 4 * IN_FLIGHT);
      assert.equal(proxy.of('POST').length, 1, 'it never started anew');
    });

    scenario('a connection that hangs half-open, and a new client', async ({ server, proxy }) => {
      const bytes = file();
      const first = client(bytes, { endpoint: `${proxy.url}/resumable`, protocol });
      const hung = proxy.at(5 * MIB, (link) => link.hang());
      first.run();
      await hung;
      const uploadUrl = first.upload.url;
      const done = await send(bytes, { endpoint: `${proxy.url}/resumable`, protocol, uploadUrl });
      await assertCompleted(server, { ...done, id: first.answers[0].id }, bytes);
      assertSentOnce(proxy, bytes);
    });
  });
}
