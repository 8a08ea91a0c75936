// The bucket that scripts/test provides, and reading an object from it past the server under test.

import { createHash, createHmac } from 'node:crypto';

const variable = (name) => process.env[`JUMAR_TEST_S3_${name}`];
const names = ['ENDPOINT', 'REGION', 'BUCKET', 'ACCESS_KEY_ID', 'SECRET_ACCESS_KEY'];

/** Whether there is a bucket to test on. */
export const available = names.every(variable);

/** The keys of `[store.s3]` for it. */
export function settings(prefix) {
  return {
    endpoint: variable('ENDPOINT'),
    region: variable('REGION'),
    bucket: variable('BUCKET'),
    access_key_id: variable('ACCESS_KEY_ID'),
    secret_access_key: variable('SECRET_ACCESS_KEY'),
    force_path_style: true,
    prefix,
  };
}

const hex = (text) => createHash('sha256').update(text).digest('hex');
const hmac = (key, text) => createHmac('sha256', key).update(text).digest();

/** A GET with AWS Signature Version 4. Keys here need no percent-encoding. */
async function get(key, query = {}) {
  const url = new URL(`/${variable('BUCKET')}${key}`, variable('ENDPOINT'));
  const pairs = Object.entries(query).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  url.search = pairs.sort().join('&');
  const time = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  const day = time.slice(0, 8);
  const scope = `${day}/${variable('REGION')}/s3/aws4_request`;
  const fields = { host: url.host, 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD', 'x-amz-date': time };
  const signed = Object.keys(fields).join(';');
  const lines = Object.entries(fields).map(([name, value]) => `${name}:${value}\n`);
  const request = ['GET', url.pathname, url.search.slice(1), lines.join(''), signed, 'UNSIGNED-PAYLOAD'].join('\n');
  const secret = `AWS4${variable('SECRET_ACCESS_KEY')}`;
  const signing = [day, variable('REGION'), 's3', 'aws4_request'].reduce(hmac, secret);
  const signature = hmac(signing, `AWS4-HMAC-SHA256\n${time}\n${scope}\n${hex(request)}`).toString('hex');
  const credential = `${variable('ACCESS_KEY_ID')}/${scope}`;
  const { host, ...sent } = fields;
  sent.authorization = `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${signed}, Signature=${signature}`;
  const answer = await fetch(url, { headers: sent });
  if (!answer.ok) throw new Error(`the bucket says ${answer.status} to ${url.pathname}: ${await answer.text()}`);
  return Buffer.from(await answer.arrayBuffer());
}

const keysIn = (list) => [...list.toString().matchAll(/<Key>([^<]*)<\/Key>/g)].map(([, key]) => key);

/** An object's bytes. */
export const read = (key) => get(`/${key}`);

/** The keys of all objects below a prefix. */
export const keys = async (prefix) => keysIn(await get('', { 'list-type': '2', prefix }));

/** The keys of all multipart uploads below a prefix. */
export const open = async (prefix) => keysIn(await get('', { uploads: '', prefix }));
