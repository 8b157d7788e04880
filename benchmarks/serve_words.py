"""Words of bad requests: hosts, paths and names that somebody tries sooner or later. No command."""

from __future__ import annotations

CANARY = "canary-in-a-prompt"
"""Part of prompts and of queries; a log must not hold it."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


HOSTS = _words("""
127.1 2130706433 0x7f000001 0177.0.0.1 0 0.0.0.0 localhost LOCALHOST. [::1] [::] [::ffff:127.0.0.1]
[::ffff:7f00:1] [64:ff9b::7f00:1] [fe80::1%25eth0] 169.254.169.254 10.0.0.1 metadata.google.internal
127.0.0.1 example.com@127.0.0.1 127.0.0.1#@example.com １２７.0.0.1 127。0。0。1 localtest.me example.com
""")
"""This machine, its network and its cloud, as they are and in disguise."""
LOCAL = _words("""
/etc/passwd file:///etc/passwd FILE:/etc/passwd file://localhost/etc/passwd //etc/passwd \\\\host\\a.png
C:\\a.png ~/.ssh/id_rsa /proc/self/environ /dev/zero a.png javascript:alert(1) blob:http://x/1 about:blank
view-source:file:///etc/passwd \0/etc/passwd file:///etc/passwd%00.png php://filter/resource=/etc/passwd
jar:http://x!/y
""")
PATHS = _words(f"""
/ /../../etc/passwd /..%2f..%2fetc/passwd /%2e%2e/%2e%2e/etc/passwd //etc/passwd /\\..\\x /%ff%fe * /%
/v1/models/../../etc/passwd /v1/models/%00 /v1/models/{"x" * 3000} /static/../../etc/passwd /.git/config
/v1/chat/completions/ /V1/chat/completions /v1/completions /wp-login.php /assets/..%5c..%5cetc/passwd
/?{CANARY} /health%0d%0aX-Injected:%201
""")
METHODS = _words("GET PUT DELETE PATCH TRACE HEAD OPTIONS CONNECT BREW get")
SPECIAL = (
    *_words("<im_patch> <im_start> <image> </s> <s> <unk> ### <|im_end|> {{messages}} \0 \u202e \U0010ffff"),
    *(" ASSISTANT: ", "{% for x in range(10**9) %}{% endfor %}", "\x1b[2J"),
)
MEDIA_TYPES = (
    *_words("text/plain multipart/form-data image/png application/xml application/x-www-form-urlencoded"),
    *("", "a" * 5000, "application/json; charset=utf-16", "multipart/form-data; boundary=x"),
)
