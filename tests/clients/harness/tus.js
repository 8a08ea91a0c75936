// tus-js-client with its answers written down.

import { Upload } from 'tus-js-client';

/** Long enough for the server to have read what the kernel had of a broken connection; often enough for all of them. */
const RETRY_DELAYS = [200, 200, 400, 800, 1600, 3200];

/**
 * An upload that has not started: the client's `upload`, and the `answers` that it got, each
 * `{method, status, id, offset, ms}`. `run()` starts it and resolves with `{id, url, body}` once it is done: the
 * upload's name and URL, and the last answer's body.
 */
export function client(source, options) {
  const answers = [];
  const began = new WeakMap();
  let upload;
  const { onBeforeRequest, ...others } = options;
  const done = new Promise((resolve, reject) => {
    upload = new Upload(source, {
      retryDelays: RETRY_DELAYS,
      ...others,
      onBeforeRequest: async (request) => {
        await onBeforeRequest?.(request);
        began.set(request, Date.now());
      },
      onAfterResponse: (request, answer) => {
        answers.push({
          method: request.getMethod(),
          status: answer.getStatus(),
          id: answer.getHeader('Upload-Id'),
          offset: Number(answer.getHeader('Upload-Offset')),
          ms: Date.now() - began.get(request),
        });
      },
      onError: reject,
      onSuccess: ({ lastResponse }) => {
        const created = answers.findLast(({ method, status }) => method === 'POST' && status === 201);
        resolve({ id: created?.id, url: upload.url, body: lastResponse.getBody() });
      },
    });
  });
  // Whoever only starts it and goes on by other means does not wait for it.
  done.catch(() => {});
  const run = () => {
    upload.start();
    return done;
  };
  return { upload, answers, run };
}

/** The same, started: resolves when it is done. */
export const send = (source, options) => client(source, options).run();
