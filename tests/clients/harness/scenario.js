// A scenario is run on every kind of store, with a server of its file's own and a network of its own.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { Proxy } from './proxy.js';
import * as s3 from './s3.js';
import { Server } from './server.js';

export const MIB = 1 << 20;

/** How long one scenario may take. */
const TIMEOUT_MS = 30_000;

/**
 * What may be sent again after a connection broke: bytes that the kernel had, and the server had not read yet when the
 * client came back. Everything else that arrived is sent once.
 */
export const IN_FLIGHT = MIB;

/** A file of no round size. */
export const file = (bytes = 12 * MIB + 345) => randomBytes(bytes);

export const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** Describes scenarios with `define(scenario)`, where `scenario(name, run)` runs `run({ server, proxy, context })`. Servers have `more` keys in their configuration. */
export function onEveryStore(title, define, more = {}) {
  for (const kind of ['fs', 's3']) {
    const missing = kind === 's3' && !s3.available;
    const skip = missing && 'JUMAR_TEST_S3_… is not set: run scripts/test, or scripts/dev-s3';
    if (skip) console.error(`!!! NOT TESTED: ${title} on S3. ${skip}`);
    describe(`${title}, on ${kind}`, { skip }, () => {
      let server;
      before(async () => {
        server = await Server.start(kind, more);
      });
      after(() => server?.stop());
      define((name, run) => {
        test(name, { timeout: TIMEOUT_MS }, async (context) => {
          const proxy = await Proxy.start(server.port);
          context.after(() => proxy.close());
          try {
            await run({ server, proxy, context });
          } catch (error) {
            console.error(`${kind}: ${name}: the end of the server's log:\n${await server.log()}`);
            throw error;
          }
        });
      });
    });
  }
}

/** The store has exactly these bytes, and so says the server where it gives them back. */
export async function assertStored(server, { id, url, bytes }) {
  const wanted = sha256(bytes);
  if (url) {
    const answer = await fetch(url);
    assert.equal(answer.status, 200, `GET of the completed ${url}`);
    assert.equal(sha256(Buffer.from(await answer.arrayBuffer())), wanted, 'what GET returns');
  }
  assert.ok(id, 'Upload-Id names the upload');
  assert.equal(sha256(await server.object(id)), wanted, 'what the store has');
}

/** Nothing that arrived was sent twice. */
export function assertSentOnce(proxy, bytes, allowed = IN_FLIGHT) {
  const again = proxy.sent - bytes.length;
  assert.ok(again >= 0 && again <= allowed, `${again} bytes of ${bytes.length} were sent again`);
}
