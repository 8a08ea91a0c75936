// The network between a client and the server: it forwards bytes, counts those of bodies, and fails where it is told to.

import net from 'node:net';
import { Requests } from './requests.js';

const forever = () => new Promise(() => {});

/** Resolves when the kernel has the bytes. */
function write(socket, bytes) {
  return new Promise((resolve, reject) => {
    socket.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}

/** One client's connection and the one to the server that belongs to it. */
class Link {
  hung = false;
  answerLost = false;

  constructor(client, server) {
    this.client = client;
    this.server = server;
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on('error', () => this.cut());
    }
  }

  /** Closes both sides. What was forwarded before still reaches the server. */
  cut() {
    this.client.destroy();
    this.server.destroy();
  }

  /** Closes both sides so that the server may lose what it has not read yet. */
  reset() {
    this.client.resetAndDestroy();
    this.server.resetAndDestroy();
  }

  /** Nothing passes any more, and neither side hears of it: a laptop that was closed, a cable that was pulled. */
  hang() {
    this.hung = true;
  }

  /** The server gets everything; what it says to that is lost together with the connection. */
  loseAnswer() {
    this.answerLost = true;
  }
}

export class Proxy {
  /** Every request that was forwarded: `{method, path, fields, sent}`, the last being what went up of its body. */
  requests = [];
  /** How many bytes of bodies went up, in all. */
  sent = 0;
  /** While it is true nobody gets through. */
  down = false;
  #events = [];
  #links = new Set();
  #listener;

  static async start(port) {
    const proxy = new Proxy();
    proxy.#listener = net.createServer((client) => proxy.#accept(client, port));
    await new Promise((resolve) => proxy.#listener.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get url() {
    return `http://127.0.0.1:${this.#listener.address().port}`;
  }

  /**
   * Calls `action` with the link when exactly so many bytes of bodies have gone up, over all connections. That link
   * forwards no more until it is done. Resolves with it. Calls are made in order.
   */
  at(bytes, action) {
    const event = { bytes, action };
    event.done = new Promise((resolve) => {
      event.resolve = resolve;
    });
    this.#events.push(event);
    return event.done;
  }

  /** Requests of one method, as they were forwarded. */
  of(method) {
    return this.requests.filter((request) => request.method === method);
  }

  async close() {
    for (const link of this.#links) link.cut();
    await new Promise((resolve) => this.#listener.close(resolve));
  }

  #accept(client, port) {
    if (this.down) {
      client.destroy();
      return;
    }
    const link = new Link(client, net.connect(port, '127.0.0.1'));
    this.#links.add(link);
    Promise.all([this.#up(link), this.#answers(link)])
      .catch(() => link.cut())
      .finally(() => this.#links.delete(link));
  }

  async #up(link) {
    const requests = new Requests(this.requests);
    for await (const bytes of link.client) {
      for (const piece of requests.split(bytes)) {
        if (piece.request) await this.#body(link, piece);
        else await write(link.server, piece.bytes);
      }
    }
    link.server.end();
  }

  async #body(link, { bytes, request }) {
    while (bytes.length > 0) {
      const event = this.#events[0];
      const now = event ? bytes.subarray(0, Math.max(0, event.bytes - this.sent)) : bytes;
      this.sent += now.length;
      request.sent += now.length;
      await write(link.server, now);
      bytes = bytes.subarray(now.length);
      if (event && event === this.#events[0] && this.sent >= event.bytes) {
        this.#events.shift();
        event.resolve(event.action(link));
        await event.done;
        if (link.hung) await forever();
      }
    }
  }

  async #answers(link) {
    for await (const bytes of link.server) {
      if (link.hung) await forever();
      if (link.answerLost) break;
      await write(link.client, bytes);
    }
    if (link.answerLost) link.cut();
    else link.client.end();
  }
}
