"""A server that gives one prepared reply to whatever a vendor's own SDK asks it."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic
import openai


class Vendor(ThreadingHTTPServer):
    """A vendor's server that gives one prepared reply to every request, so that the SDKs bring their own transport."""

    reply: tuple[int, str, bytes] = (200, "application/json", b"{}")

    def openai(self, status: int, body: bytes, *, kind: str = "application/json") -> openai.OpenAI:
        self.reply = (status, kind, body)
        return openai.OpenAI(api_key="k", base_url=f"http://127.0.0.1:{self.server_port}/v1", max_retries=0)

    def anthropic(self, status: int, body: bytes, *, kind: str = "application/json") -> anthropic.Anthropic:
        self.reply = (status, kind, body)
        return anthropic.Anthropic(api_key="k", base_url=f"http://127.0.0.1:{self.server_port}", max_retries=0)


class Replies(BaseHTTPRequestHandler):
    server: Vendor

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        status, kind, body = self.server.reply
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: object) -> None:
        pass
