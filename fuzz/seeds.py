#!/usr/bin/env python3
"""Writes small valid inputs for each fuzz target: seeds.py DIR makes DIR/TARGET/NAME."""

import gzip
import io
import json
import pathlib
import struct
import sys
import tarfile
import zlib


def make_tar(tar_format):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:

        def add(name, kind=tarfile.REGTYPE, content=b"", link="", **fields):
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), link
            info.mtime = 1.7e9 + 0.5 if tar_format == tarfile.PAX_FORMAT else 1_700_000_000
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(content))

        add("./", tarfile.DIRTYPE, mode=0o755)
        add("a/", tarfile.DIRTYPE, mode=0o1777)
        add("a/b", content=b"hello" * 200, mode=0o4755, uid=1000 if tar_format == tarfile.USTAR_FORMAT else 3_000_000)
        add("a/l", tarfile.SYMTYPE, link="../a/b")
        add("s", tarfile.SYMTYPE, link="a")
        add("s/below", content=b"x")
        add("a/h", tarfile.LNKTYPE, link="a/b")
        add("a/.wh.gone")
        add("a/.wh..wh..opq")
        add("dev", tarfile.CHRTYPE, devmajor=1, devminor=3)
        add("pipe", tarfile.FIFOTYPE)
        if tar_format != tarfile.USTAR_FORMAT:
            add("long/" + "n" * 150, content=b"y" * 513)
            add("a/link", tarfile.SYMTYPE, link="t" * 120)
        if tar_format == tarfile.PAX_FORMAT:
            headers = {"mtime": "-5.5", "SCHILY.xattr.user.a": "b", "LIBARCHIVE.xattr.user.c": "ZA"}
            add("x", content=b"z", pax_headers=headers)
            sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sp",
                      "GNU.sparse.realsize": "4096"}
            add("GNUSparseFile.0/sp", content=b"1\n1024\n4\n".ljust(512, b"\0") + b"data", pax_headers=sparse)
            old = {"GNU.sparse.map": "0,2,9,2", "GNU.sparse.size": "11"}
            add("sp01", content=b"abcd", pax_headers=old)
    return out.getvalue()[:-8192]


def old_sparse():
    header = bytearray(512)
    header[0:6] = b"sparse"
    header[100:107], header[124:135], header[136:147] = b"0000644", b"00000000004", b"00000000000"
    header[156], header[257:265] = ord("S"), b"ustar  \0"
    header[386:397], header[398:409], header[483:494] = b"00000001000", b"00000000004", b"00000002000"
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    return bytes(header) + b"data".ljust(512, b"\0") + bytes(1024)


def deflate(data, level=6, strategy=zlib.Z_DEFAULT_STRATEGY, every=0):
    writer = zlib.compressobj(level, zlib.DEFLATED, -15, 8, strategy)
    out = b""
    for start in range(0, len(data), every or len(data)):
        out += writer.compress(data[start : start + (every or len(data))])
        if every:
            out += writer.flush(zlib.Z_SYNC_FLUSH)
    return out + writer.flush()


def toc(layer_size=4096):
    def record(kind, flags, path, link, mode, xattrs, size, value):
        return struct.pack("<BBHHHIIIIqQQ", kind, flags, len(path), len(link), mode, 1, 2, 5, xattrs, -3, size, value)

    names = [b"./", b"a", b"sp", b"l", b"h", b"c", b"d/.wh.x", b"d/.wh..wh..opq", b"f"]
    links = [b"", b"", b"", b"../a", b"a", b"", b"", b"", b""]
    kinds = [1, 0, 0, 2, 3, 4, 0, 0, 6]
    sizes = [0, 3, 100, 0, 0, 0, 0, 0, 0]
    values = [0, 512, 1, 0, 0, 1 << 32 | 3, 0, 0, 0]
    records = b"".join(
        record(kind, int(i == 2), names[i], links[i], 0o755, int(i == 1), sizes[i], values[i])
        for i, kind in enumerate(kinds)
    )
    strings = b"".join(name + link for name, link in zip(names, links))
    extents = struct.pack("<QQQ", 5, 1024, 10)
    xattrs = struct.pack("<IHI", 1, 6, 2) + b"user.a" + b"1\0"
    return b"".join(struct.pack("<Q", len(part)) + part for part in (records, strings, extents, xattrs))


def index(checkpoints, chunks=b""):
    """checkpoints: (kind, bits, window, compressed start, compressed end) of each span of 512 bytes. With chunks, each
    span has one."""
    records, windows, end = b"", b"", 0
    for kind, bits, window, start, stop in checkpoints:
        end += 512
        records += struct.pack(
            "<QQQIIBBBB", start, stop, end, len(window), int(bool(chunks)), kind, bits, 2 * bool(chunks), 0
        ) + bytes(64)
        windows += window
    table = toc() if end >= 4096 else struct.pack("<4Q", 0, 0, 0, 0)
    lengths = struct.pack("<HHHH", len(table), len(records), len(windows), len(chunks))
    codec = {0: 0, 1: 1, 2: 1}.get(checkpoints[0][0], 2)
    return bytes([codec]) + struct.pack("<QQ", checkpoints[-1][4], end) + lengths + table + records + windows + chunks + bytes(32)


# A layer and its zTOC; one of a plain tar differs in the last table alone, and those checkpoints are a FlatBuffer, too.
SOCI = pathlib.Path(__file__).resolve().parent.parent / "crates" / "core" / "tests" / "data" / "soci"
ZTOC = struct.pack("<Q", (SOCI / "layer.tar.gz").stat().st_size) + (SOCI / "layer.ztoc").read_bytes()


def contents(writer, entries):
    return bytes([writer]) + struct.pack("<I", 1_000_000) + json.dumps({"version": 1, "entries": entries}).encode()


def estargz_footer(extra):
    return (b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", len(extra)) + extra
            + b"\x01\0\0\xff\xff" + bytes(8))


def zstd_footer(magic, *words):
    return b"\x50\x2a\x4d\x18" + struct.pack("<I", 8 * len(words) + 8) + struct.pack(f"<{len(words)}Q", *words) + magic


def toc_member():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("stargz.index.json")
        info.size = len(b'{"version":1,"entries":[]}')
        tar.addfile(info, io.BytesIO(b'{"version":1,"entries":[]}'))
    return gzip.compress(out.getvalue(), mtime=0)


DIGEST = "sha256:" + "ab" * 32
MTIME = {"modtime": "2009-02-13T23:31:30.1234567Z", "mode": 2541}
OTHER_KINDS = [
    {"name": "./", "type": "dir", **MTIME},
    {"name": "l", "type": "symlink", "linkName": "../a", **MTIME},
    {"name": "h", "type": "hardlink", "linkName": "a"},
    {"name": "c", "type": "char", "devMajor": 1, "devMinor": 3, "uid": 5, "gid": 6},
    {"name": "b", "type": "block", "devMajor": 1},
    {"name": "p", "type": "fifo", "xattrs": {"user.a": "AP8Q"}},
    {"name": "d/.wh.x", "type": "reg"},
    {"name": "d/.wh..wh..opq", "type": "reg"},
]
ESTARGZ = OTHER_KINDS + [
    {"name": ".prefetch.landmark", "type": "reg", "size": 1, "offset": 90, "chunkDigest": DIGEST},
    {"name": "a", "type": "reg", "size": 9, "offset": 100, "digest": DIGEST, "chunkDigest": DIGEST},
    {"name": "e", "type": "reg", "size": 5000, "offset": 200, "chunkSize": 4000, "chunkDigest": DIGEST},
    {"name": "e", "type": "chunk", "offset": 300, "chunkOffset": 4000, "chunkSize": 1000, "chunkDigest": DIGEST},
    {"name": "i", "type": "reg", "size": 9, "offset": 300, "innerOffset": 1536, "chunkDigest": DIGEST},
]
CHUNKED = OTHER_KINDS + [
    {"type": "reg", "name": "a", "size": 9, "digest": DIGEST, "offset": 80, "endOffset": 135},
    {"type": "reg", "name": "e", "size": 5000, "digest": DIGEST, "offset": 200, "endOffset": 400, "chunkSize": 1000,
     "chunkDigest": DIGEST, "accesstime": "0001-01-01T00:00:00Z"},
    {"type": "chunk", "name": "e", "offset": 250, "chunkOffset": 1000, "chunkSize": 3000, "chunkType": "zeros"},
    {"type": "chunk", "name": "e", "offset": 300, "chunkOffset": 4000, "chunkSize": 1000, "chunkDigest": DIGEST},
]
DESCRIPTOR = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 7}
TARS = {
    "ustar": make_tar(tarfile.USTAR_FORMAT),
    "gnu": make_tar(tarfile.GNU_FORMAT),
    "pax": make_tar(tarfile.PAX_FORMAT),
    "old-sparse": old_sparse(),
    "empty": bytes(1024),
}
ZEROS = bytes(3 << 20)
PATTERN = bytes(i * i >> 7 & 255 for i in range(1 << 16)) * 40
SEEDS = {
    "tar": TARS,
    "layer": {
        **{f"plain-{name}": b"\0" + data for name, data in TARS.items()},
        "gzip": b"\0" + gzip.compress(TARS["pax"], mtime=0),
        "members": b"\0" + gzip.compress(TARS["gnu"][:1000], mtime=0) + gzip.compress(TARS["gnu"][1000:], mtime=0),
        "padded": b"\0" + gzip.compress(TARS["ustar"], mtime=0) + bytes(20),
        "zeros": b"\1" + deflate(ZEROS),
        "blocks": b"\1" + deflate(ZEROS, every=1 << 18),
        "fixed": b"\1" + deflate(PATTERN, strategy=zlib.Z_FIXED, every=1 << 18),
        "pattern": b"\1" + deflate(PATTERN, every=200_000),
        "zstd": b"\0\x28\xb5\x2f\xfd\x24\x05\x29\0\0hello\x50\x2a\x4d\x18\x02\0\0\0ab",
    },
    "spans": {
        f"codec-{codec}": bytes([codec])
        + b"".join(struct.pack("<BHB", kind, length, seed) for kind, length, seed in steps)
        for codec in (0, 1, 2, 3, 12, 13, 18, 19)
        for steps in [[(1, 9000, 3), (3, 0, 0), (0, 16384, 0), (2, 3000, 9), (4, 0, 0), (1, 20000, 7), (5, 0, 0),
                       (0, 9000, 0), (3, 0, 0), (1, 12000, 11)]]
    },
    "index": {
        "stored": index([(0, 0, b"", i * 512, i * 512 + 512) for i in range(9)]),
        "gzip": index([(1, 0, b"", 0, 90)] + [(2, 3, b"\x05\x00\x05abcde", 89 + i, 91 + i) for i in range(9)]),
        "zstd": index([(3, 0, b"", 0, 100), (4, 0, b"", 100, 180), (3, 0, b"", 180, 300)]),
        "chunks": index([(1, 0, b"", 10, 100), (1, 0, b"", 120, 180)], b"".join(
            struct.pack("<QQQQQ", *numbers) + bytes(32)
            for numbers in ((10, 100, 7, 0, 500), (120, 180, 0, 512, 600)))),
    },
    "ztoc": {"gzip": ZTOC, "plain": ZTOC + (SOCI / "tar.zinfo").read_bytes()},
    "toc": {"all-kinds": struct.pack("<Q", 4096) + toc(), "empty": bytes(40)},
    "contents": {
        "estargz": contents(0, ESTARGZ),
        "zstd-stargz": contents(1, ESTARGZ),
        "zstd-containers": contents(2, CHUNKED),
    },
    "footers": {
        "usual": b"\0\1" + bytes(99) + estargz_footer(b"SG\x16\0" + b"%016x" % 77 + b"STARGZ"),
        "old": b"\0\1" + bytes(99) + estargz_footer(b"%016x" % 77 + b"STARGZ"),
        "external": b"\0\1" + bytes(99) + estargz_footer(b"SG\x11\0STARGZEXTERNALTOC"),
        "zstd-40": b"\0\1" + bytes(99) + zstd_footer(b"GNUlInUx", 7, 9, 50, 1),
        "zstd-64": b"\0\1" + bytes(99) + zstd_footer(b"GnUlInUx", 7, 9, 50, 1, 20, 5, 30),
        "member": b"\1\0" + toc_member(),
        "frame": b"\2\1\x28\xb5\x2f\xfd\x20\x10\x81\0\0" + b"0123456789abcdef",
        "checksum": b"\3\2" + DIGEST.encode(),
        "position": b"\3\3" + b"1113455:3593:17771:1",
    },
    "manifest": {
        "manifest": b"\0" + json.dumps({"schemaVersion": 2, "config": DESCRIPTOR, "layers": [DESCRIPTOR],
                                        "annotations": {"a": "b"}}).encode(),
        "index": b"\1" + json.dumps({"schemaVersion": 2, "manifests": [
            DESCRIPTOR | {"platform": {"os": "linux", "architecture": "arm", "variant": "v7", "os.version": "1",
                                       "os.features": ["x"]}}]}).encode(),
        "config": b"\0" + json.dumps({"os": "linux", "architecture": "amd64", "config": {"Env": ["A=b"]},
                                      "rootfs": {"type": "layers", "diff_ids": [DIGEST]}}).encode(),
        "schema1": b"\0" + b'{"schemaVersion":1,"fsLayers":[]}',
    },
    "reference": {str(i): text.encode() for i, text in enumerate([
        "golang", "ghcr.io/owner/name:tag", "host:5000/name@" + DIGEST, "[::1]:5000/a/b:c", "localhost/x",
        "oci:dir:tag", "oci:/a/b@" + DIGEST, "docker-archive:a.tar:name:tag", "docker://alpine:3.20", "a/b",
        "index.docker.io/library/x", "docker-archive:x"])},
    "platform": {str(i): text.encode() for i, text in enumerate([
        "linux/amd64", "linux", "arm64", "linux/arm/v7", "windows(10.0.17763+win32k)/amd64", "x86_64", "armhf",
        "linux/amd64/v3", "i386", "linux(+a)/aarch64/v8.2"])},
    "challenge": {str(i): text.encode() for i, text in enumerate([
        'Bearer realm="https://a/token",service="s",scope="repository:x:pull"', 'Basic realm="a\\"b"',
        'Basic realm=x, Bearer realm="y" , scope=a:b', "Negotiate, NTLM abc==", "=,,"])},
}


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    for target, seeds in SEEDS.items():
        directory = pathlib.Path(sys.argv[1]) / target
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (directory / name).write_bytes(data)


main()
