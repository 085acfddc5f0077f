"""A small internet: files behind an address of this machine."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """Files behind http://127.0.0.1; ``cuts`` says after how many bytes the next answers break off."""

    def __init__(self):
        self.files, self.ranges, self.cuts, self.log, self.etags = {}, True, [], [], True
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name, asked = self.path[1:].split("?")[0], self.headers.get("Range")
                site.log.append((name, asked))
                if name in site.redirects:
                    self.send_response(302)
                    self.send_header("Location", site.redirects[name])
                    return self.end_headers()
                if name not in site.files:
                    return self.send_error(404)
                body, start = site.files[name], 0
                etag = f'"{hashlib.md5(body).hexdigest()}"'
                if site.ranges and asked and self.headers.get("If-Range") in (None, etag):
                    start = int(asked[len("bytes=") : -1])
                    if start >= len(body):
                        return self.send_error(416)
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                else:
                    self.send_response(200)
                if site.etags:
                    self.send_header("ETag", etag)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                cut = site.cuts.pop(0) if site.cuts and not name.endswith(".md5") else None
                self.wfile.write(body[start:][:cut])

            def log_message(self, *_):
                pass

        self.redirects = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def ranges_asked(self, name):
        return [asked for path, asked in self.log if path == name]
