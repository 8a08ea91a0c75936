// A page with Uppy's tus plugin, as small as it can be. Its query says where to and how.

import Uppy from '@uppy/core';
import Tus from '@uppy/tus';

const query = new URL(location).searchParams;
const ids = {};
const token = query.get('token');

// With a token it has the plugin's own settings for everything else.
const settings = token
  ? { headers: { Authorization: `Bearer ${token}` } }
  : { chunkSize: Number(query.get('chunkSize') ?? Infinity), retryDelays: [200, 400, 800] };

const uppy = new Uppy().use(Tus, {
  endpoint: query.get('endpoint'),
  ...settings,
  onAfterResponse(request, answer) {
    ids[request.getURL()] = answer.getHeader('Upload-Id');
  },
});

document.querySelector('input').addEventListener('change', ({ target }) => {
  for (const file of target.files) uppy.addFile({ name: file.name, type: file.type, data: file });
});

// What the test waits for.
document.querySelector('button').addEventListener('click', async () => {
  const { successful, failed } = await uppy.upload();
  window.result = {
    done: successful.map(({ name, uploadURL: url }) => ({ name, url, id: ids[url] })),
    failed: failed.map(({ name, error }) => `${name}: ${error}`),
  };
});
