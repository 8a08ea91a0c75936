// tuspy, the client in Python, over tus.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { assertSentOnce, assertStored, file, IN_FLIGHT, MIB, onEveryStore } from './harness/scenario.js';
import { target } from './harness/server.js';

const python = path.join(target, 'python/bin/python');
const script = fileURLToPath(new URL('tuspy/upload.py', import.meta.url));

/** Sends the file as `options` say; what the script says of it. */
async function send(proxy, options) {
  const endpoint = `${proxy.url}/files`;
  const { stdout } = await promisify(execFile)(python, [script, JSON.stringify({ endpoint, ...options })], {
    env: { ...process.env, NO_PROXY: '127.0.0.1' },
    timeout: 20_000,
  });
  return JSON.parse(stdout);
}

/** A file on disk, where this client reads it. */
async function onDisk(server) {
  const bytes = file();
  const file_path = path.join(server.folder, 'upload.bin');
  await fs.writeFile(file_path, bytes);
  return { bytes, file_path };
}

onEveryStore('tuspy', (scenario) => {
  for (const [name, options] of [
    ['in one request', {}],
    ['in chunks', { chunk_size: MIB }],
    ['in chunks with their checksums', { chunk_size: 5 * MIB, upload_checksum: true }],
    ['with metadata', { metadata: { filename: 'größer.txt' } }],
  ]) {
    scenario(`a file ${name}`, async ({ server, proxy }) => {
      const { bytes, file_path } = await onDisk(server);
      const done = await send(proxy, { file_path, ...options });
      assert.equal(done.error, null);
      assert.equal(done.offset, bytes.length);
      await assertStored(server, { ...done, bytes });
      assertSentOnce(proxy, bytes, 0);
    });
  }

  scenario('cut, and resumed by its URL', async ({ server, proxy }) => {
    const { bytes, file_path } = await onDisk(server);
    proxy.at(5 * MIB, (link) => link.cut());
    const cut = await send(proxy, { file_path });
    assert.ok(cut.error, 'the first one failed');
    const done = await send(proxy, { file_path, url: cut.url });
    assert.equal(done.error, null);
    assert.ok(done.resumed_at >= 5 * MIB - IN_FLIGHT && done.resumed_at <= 5 * MIB, `from ${done.resumed_at}`);
    await assertStored(server, { ...done, bytes });
    assertSentOnce(proxy, bytes);
  });

  scenario('cut, and tried again by itself', async ({ server, proxy }) => {
    const { bytes, file_path } = await onDisk(server);
    for (const at of [3, 8]) proxy.at(at * MIB, (link) => link.cut());
    const done = await send(proxy, { file_path, chunk_size: 5 * MIB, retries: 3, retry_delay: 0.2 });
    assert.equal(done.error, null);
    await assertStored(server, { ...done, bytes });
    assertSentOnce(proxy, bytes, 2 * IN_FLIGHT);
    assert.equal(proxy.of('POST').length, 1);
  });

  scenario('stopped, and resumed from a stored URL', async ({ server, proxy }) => {
    const { bytes, file_path } = await onDisk(server);
    const storage = path.join(server.folder, 'tuspy.json');
    await send(proxy, { file_path, storage, chunk_size: MIB, stop_at: 5 * MIB });
    const done = await send(proxy, { file_path, storage });
    assert.equal(done.resumed_at, 5 * MIB);
    await assertStored(server, { ...done, bytes });
    assertSentOnce(proxy, bytes, 0);
  });
});
