// A page with Uppy's S3 plugin, as small as it can be. Its query says where to and how.

import AwsS3 from '@uppy/aws-s3';
import Uppy from '@uppy/core';

const query = new URL(location).searchParams;

const uppy = new Uppy().use(AwsS3, {
  companionEndpoint: query.get('endpoint'),
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
