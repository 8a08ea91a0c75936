// A server under test: the real binary with a configuration, a folder and ports of its own.

import { execFile, spawn } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import fs from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as s3 from './s3.js';

/** How long a start may take. A debug build on a busy machine is slow. */
const START_MS = 30_000;

const root = fileURLToPath(new URL('../../..', import.meta.url));

/** The folder for what is built and installed for these tests. */
export const target = path.join(root, 'target/clients');

function binary() {
  const built = ['debug', 'release'].map((kind) => path.join(root, 'target', kind, 'jumar'));
  const found = process.env.JUMAR_BIN ?? built.find(existsSync);
  if (!found) throw new Error('no binary: cargo build --bin jumar, or say where it is in JUMAR_BIN');
  return path.resolve(found);
}

/** A port below those that outgoing connections get: while the server is down, its own must not go to a client. */
async function freePort() {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    const listener = net.createServer();
    const free = await new Promise((resolve) => {
      listener.once('error', () => resolve(false));
      listener.listen(port, '127.0.0.1', () => resolve(true));
    });
    if (free) {
      await new Promise((resolve) => listener.close(resolve));
      return port;
    }
  }
}

function toml(sections) {
  const lines = Object.entries(sections).map(([section, keys]) => {
    const entries = Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`);
    return `[${section}]\n${entries.join('')}`;
  });
  return lines.join('');
}

/** Without the settings of whoever runs the tests. */
function environment() {
  const kept = Object.entries(process.env).filter(([name]) => !/^(JUMAR_|RUST_LOG$)/.test(name));
  return Object.fromEntries(kept);
}

export class Server {
  #child = null;
  #ended;
  #atExit = () => {
    this.#child?.kill('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  };

  /** A running server on an empty folder, on a store of the kind "fs" or "s3", with more keys of some sections of its configuration. */
  static async start(kind, more = {}) {
    const { server: listening, 'store.s3': bucket, ...others } = more;
    const server = new Server();
    server.kind = kind;
    server.folder = await fs.mkdtemp(path.join(os.tmpdir(), 'jumar-clients-'));
    process.once('exit', server.#atExit);
    server.prefix = `clients-${randomBytes(8).toString('hex')}`;
    server.port = await freePort();
    await fs.writeFile(
      path.join(server.folder, 'config.toml'),
      toml({
        server: { listen: `127.0.0.1:${server.port}`, admin_listen: `127.0.0.1:${await freePort()}`, ...listening },
        catalog: { url: 'sqlite:data/jumar.db' },
        spool: { path: 'data/spool', min_free_bytes: 16 << 20 },
        store: { kind },
        ...others,
        ...(kind === 's3' ? { 'store.s3': { ...s3.settings(server.prefix), ...bucket } } : { 'store.fs': { path: 'data' } }),
      }),
    );
    await server.launch();
    return server;
  }

  /** Starts it and waits until it is ready. */
  async launch() {
    const log = await fs.open(path.join(this.folder, 'log'), 'a');
    const child = spawn(binary(), ['serve', '--config', path.join(this.folder, 'config.toml')], {
      cwd: this.folder,
      env: environment(),
      stdio: ['ignore', log.fd, log.fd],
    });
    await log.close();
    this.#child = child;
    this.#ended = new Promise((resolve) => {
      child.once('exit', resolve);
      child.once('error', resolve);
    });
    let gone = false;
    this.#ended.then(() => {
      gone = true;
    });
    const deadline = Date.now() + START_MS;
    while (!(await this.#ready())) {
      if (gone || Date.now() > deadline) {
        throw new Error(`the server did not start:\n${await this.log()}`);
      }
      await sleep(20);
    }
  }

  /** Runs another command with its configuration; what that prints. */
  async run(...command) {
    const args = [...command, '--config', path.join(this.folder, 'config.toml')];
    const { stdout } = await promisify(execFile)(binary(), args, { cwd: this.folder, env: environment() });
    return stdout;
  }

  async #ready() {
    try {
      const answer = await fetch(`http://127.0.0.1:${this.port}/readyz`, { headers: { connection: 'close' } });
      await answer.arrayBuffer();
      return answer.status === 200;
    } catch {
      return false;
    }
  }

  /** `kill -9`, and waits until it is gone. */
  async kill() {
    this.#child?.kill('SIGKILL');
    this.#child = null;
    await this.#ended;
  }

  /** Ends it and removes its folder. */
  async stop() {
    await this.kill();
    process.removeListener('exit', this.#atExit);
    await fs.rm(this.folder, { recursive: true, force: true });
  }

  /** What the store itself has of a completed upload. */
  object(id) {
    if (this.kind === 's3') return s3.read(`${this.prefix}/${id}`);
    return fs.readFile(path.join(this.folder, 'data/objects', id));
  }

  /** The keys of all objects that the store has. */
  async objects() {
    if (this.kind === 's3') return s3.keys(`${this.prefix}/`);
    return fs.readdir(path.join(this.folder, 'data/objects'));
  }

  /** The end of its log. */
  async log() {
    const text = await fs.readFile(path.join(this.folder, 'log'), 'utf8');
    return text.split('\n').slice(-40).join('\n');
  }
}

// A signal ends a process without its "exit", and the server would stay.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1));
