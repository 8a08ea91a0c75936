// A page with Uppy's S3 plugin, as small as it can be. Its query says where to and how.

import AwsS3 from '@uppy/aws-s3';
import Uppy from '@uppy/core';

const query = new URL(location).searchParams;

const endpoint = query.get('endpoint');
const token = query.get('token');

// The plugin has no option for fields of its own: what it asks of the server goes through `fetch`, and the token is added there.
// Parts go to the bucket by XMLHttpRequest, and have none.
if (query.get('how') === 'fetch') {
  const { fetch } = window;
  window.fetch = (url, options = {}) => {
    if (!String(url).startsWith(`${endpoint}/s3/`)) return fetch(url, options);
    return fetch(url, { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` } });
  };
}

// What goes in a form can be told by a hook of the plugin's, fields of the request included.
const sign = async ({ key }) => ({
  url: `${endpoint}/v1/objects`,
  fields: { key },
  headers: { Authorization: `Bearer ${token}` },
});

const uppy = new Uppy().use(AwsS3, {
  ...(query.get('how') === 'sign'
    ? { signRequest: sign, generateObjectKey: ({ name }) => name }
    : { companionEndpoint: endpoint }),
  ...(query.get('how') === 'options' && {
    headers: { Authorization: `Bearer ${token}` },
    companionHeaders: { Authorization: `Bearer ${token}` },
  }),
  shouldUseMultipart: query.get('multipart') === 'true',
  getChunkSize: () => 5 << 20,
});
window.uppy = uppy;

document.querySelector('input').addEventListener('change', ({ target }) => {
  for (const file of target.files) uppy.addFile({ name: file.name, type: file.type, data: file });
});

// What the test waits for.
document.querySelector('button').addEventListener('click', async () => {
  const { successful, failed } = await uppy.upload();
  window.result = {
    done: successful.map(({ name, uploadURL: url, response }) => ({ name, url, key: response.body.key })),
    failed: failed.map(({ name, error }) => `${name}: ${error}`),
  };
});
