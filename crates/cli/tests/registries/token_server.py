#!/usr/bin/env python3
"""A token server as the documents of distribution describe it (token.md: GET with Basic; oauth.md: POST with a
password or a refresh token), and redirects to signed URLs that expire. The Python standard library and openssl.

    token_server.py SETTINGS        a JSON file, read again for every request, since tests change it:

    listen      address and port
    log         file of requests, a line for each: METHOD form outcome
    user, password, refresh_token
    service, issuer, key, certificate
                what tokens are made with: the registry knows the certificate
    life        seconds until the registry refuses a token
    said        what clients are told of that (expires_in)
    get         whether the GET form is known
    blobs, signing_key, url_life
                GET /v2/.../blobs/... leads to that URL with a signature of nginx's secure_link, good for so many seconds;
                that it expires is not to be seen in it
"""

import base64
import hashlib
import http.server
import json
import subprocess
import sys
import time
import urllib.parse

# docker-registry takes a token for another minute, for clocks that go wrong.
LEEWAY = 60


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed_token(settings, subject, scopes):
    with open(settings["certificate"]) as file:
        lines = [line.strip() for line in file if "-----" not in line]
    header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines)]}
    now = int(time.time())
    access = []
    for scope in scopes:
        kind, name, actions = scope.split(":", 2)
        # Whatever was asked for beyond that is left out, which is no error.
        granted = [action for action in actions.split(",") if action == "pull" and subject]
        access.append({"type": kind, "name": name, "actions": granted})
    claims = {
        "iss": settings["issuer"],
        "sub": subject,
        "aud": settings["service"],
        "exp": now + settings["life"] - LEEWAY,
        "nbf": now - 3600,
        "iat": now,
        "jti": str(time.time_ns()),
        "access": access,
    }
    parts = [base64url(json.dumps(part).encode()) for part in (header, claims)]
    command = ["openssl", "dgst", "-sha256", "-sign", settings["key"]]
    signature = subprocess.run(command, input=".".join(parts).encode(), capture_output=True, check=True).stdout
    return ".".join(parts + [base64url(signature)])


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def settings(self):
        with open(sys.argv[1]) as file:
            return json.load(file)

    def log_message(self, *_):
        pass

    def note(self, settings, form, outcome):
        with open(settings["log"], "a") as file:
            file.write(f"{self.command} {form} {outcome}\n")

    def answer(self, status, document, headers=()):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def token(self, settings, form, subject, scopes, name, with_refresh_token):
        self.note(settings, form, "granted")
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        document = {
            name: signed_token(settings, subject, scopes),
            "expires_in": settings["said"],
            "issued_at": issued,
            "scope": " ".join(scopes),
        }
        if with_refresh_token:
            document["refresh_token"] = settings["refresh_token"]
        self.answer(200, document)

    def refuse(self, settings, form, status, document):
        self.note(settings, form, "refused")
        self.answer(status, document)

    def redirect(self, settings, path):
        target = urllib.parse.urlsplit(settings["blobs"] + path)
        expires = int(time.time()) + settings["url_life"]
        secret = f"{expires}{target.path} {settings['signing_key']}".encode()
        signature = base64url(hashlib.md5(secret).digest())
        location = f"{target.geturl()}?md5={signature}&until={expires}"
        self.note(settings, "blob", "redirected")
        self.answer(307, {}, [("Location", location)])

    def do_GET(self):
        settings = self.settings()
        url = urllib.parse.urlsplit(self.path)
        if url.path.startswith("/v2/"):
            self.redirect(settings, url.path)
            return
        query = urllib.parse.parse_qs(url.query)
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        form = kind.lower() or "anonymous"
        if not settings["get"]:
            self.refuse(settings, form, 405, {})
            return
        if query.get("service") != [settings["service"]]:
            self.refuse(settings, form, 400, {"details": "another service"})
            return
        subject = ""
        if kind:
            expected = f"{settings['user']}:{settings['password']}".encode()
            if kind.lower() != "basic" or base64.b64decode(value) != expected:
                self.refuse(settings, form, 401, {"details": "incorrect username or password"})
                return
            subject = settings["user"]
        offline = query.get("offline_token") == ["true"]
        self.token(settings, form, subject, query.get("scope", []), "token", offline)

    do_HEAD = do_GET

    def do_POST(self):
        settings = self.settings()
        length = int(self.headers.get("Content-Length", "0"))
        fields = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
        form = fields.get("grant_type", "nothing")
        if not fields.get("client_id") or fields.get("service") != settings["service"]:
            self.refuse(settings, form, 400, {"error": "invalid_request"})
            return
        known = {
            "password": ("username", "password") if "username" in fields else None,
            "refresh_token": ("refresh_token",),
        }.get(form)
        names = {"username": "user"}
        if not known or any(fields.get(name) != settings[names.get(name, name)] for name in known):
            self.refuse(settings, form, 401, {"error": "invalid_grant"})
            return
        offline = fields.get("access_type") == "offline"
        self.token(settings, form, settings["user"], fields.get("scope", "").split(), "access_token", offline)


address, port = json.load(open(sys.argv[1]))["listen"].rsplit(":", 1)
http.server.ThreadingHTTPServer((address, int(port)), Server).serve_forever()
