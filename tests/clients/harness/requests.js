// What one connection sends, told apart into heads and bodies: as much of HTTP/1.1 as these clients speak.

export class Requests {
  #seen;
  #expected = 'request';
  #line = '';
  #current = null;
  #left = 0;

  /** Every request whose first line has come is added to `seen`. */
  constructor(seen) {
    this.#seen = seen;
  }

  /** The same bytes in pieces; a piece of a body has the request that it belongs to. */
  *split(bytes) {
    let from = 0;
    let at = 0;
    while (at < bytes.length) {
      if (this.#left > 0) {
        if (from < at) yield { bytes: bytes.subarray(from, at), request: null };
        from = at;
        at = Math.min(bytes.length, at + this.#left);
        this.#left -= at - from;
        yield { bytes: bytes.subarray(from, at), request: this.#current };
        from = at;
        continue;
      }
      const end = bytes.indexOf(10, at);
      const next = end < 0 ? bytes.length : end + 1;
      this.#line += bytes.toString('latin1', at, next);
      at = next;
      if (end >= 0) {
        this.#take(this.#line.trim());
        this.#line = '';
      }
    }
    if (from < at) yield { bytes: bytes.subarray(from, at), request: null };
  }

  #take(line) {
    if (this.#expected === 'request') {
      if (line === '') return;
      const [method, path] = line.split(' ');
      this.#current = { method, path, fields: {}, sent: 0 };
      this.#seen.push(this.#current);
      this.#expected = 'field';
    } else if (this.#expected === 'field' && line !== '') {
      const colon = line.indexOf(':');
      this.#current.fields[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
    } else if (this.#expected === 'field') {
      const { 'content-length': length, 'transfer-encoding': encoding } = this.#current.fields;
      this.#left = Number(length ?? 0);
      this.#expected = encoding ? 'chunk' : 'request';
    } else if (this.#expected === 'chunk' && line !== '') {
      this.#left = Number.parseInt(line, 16);
      if (this.#left === 0) this.#expected = 'trailer';
    } else if (this.#expected === 'trailer' && line === '') {
      this.#expected = 'request';
    }
  }
}
