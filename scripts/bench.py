#!/usr/bin/python3
"""The measuring part of scripts/bench, which does the set-up and says what the options mean."""

import argparse
import atexit
import json
import os
import pathlib
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request

WORK = os.environ["WORK"]
BENCH = os.path.join(WORK, "bench")
IMGFS = os.environ["IMGFS_BIN"]
LOCAL = os.environ["REGISTRY"]
SHAPED = os.environ["PROXY"]
CONTROL = f"http://127.0.0.1:{os.environ['PROXY_CONTROL_PORT']}/"
ACCESS_LOG = os.path.join(WORK, "registry", "access.log")
STORAGE = os.path.join(WORK, "registry", "storage")
MOUNT = os.path.join(BENCH, "mount")
CACHE = os.path.join(BENCH, "cache")
PLAIN = os.path.join(BENCH, "plain")  # golang as umoci unpacks it, on the disk's own filesystem

ROUND_TRIP = 0.040
SECTIONS = ("first-shaped", "first-local", "second", "lazy", "indexed", "local", "many", "million", "crawl")
COLUMNS = ("imgfs", "podman", "containerd", "umoci", "ext4 or floor")


# ---- the table ----------------------------------------------------------------------------------------------------


class Row:
    """One question. Samples per column; a cell is their median, a demand is checked on the medians."""

    rows = []

    def __init__(self, what, unit="s", asked="", met=None):
        self.what, self.unit, self.asked, self.met = what, unit, asked, met
        self.samples = {}
        Row.rows.append(self)

    def add(self, column, value):
        self.samples.setdefault(column, []).append(value)
        say(f"{self.what}: {column} {self.show(value)}")

    def median(self, column):
        return statistics.median(self.samples[column])

    def has(self, *columns):
        return all(column in self.samples for column in columns)

    def show(self, value):
        if not self.unit:
            return f"{value:g}"
        digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
        return f"{value:,.{digits}f} {self.unit}"

    def cells(self):
        counts = sorted({len(samples) for samples in self.samples.values()})
        verdict = ""
        if self.met and self.has("imgfs"):
            try:
                verdict = "yes" if self.met(self.median) else "NO"
            except KeyError:
                verdict = "not measured"
        return [
            self.what,
            *(self.show(self.median(column)) if self.has(column) else "-" for column in COLUMNS),
            self.asked,
            verdict,
            "-".join(map(str, counts)),
        ]


def print_table():
    lines = [["what", *COLUMNS, "asked", "met?", "n"]] + [row.cells() for row in Row.rows if row.samples]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")


def save_results():
    with open(os.path.join(BENCH, "results.json"), "w") as file:
        json.dump([{"what": row.what, "unit": row.unit, "samples": row.samples} for row in Row.rows], file, indent=1)


# ---- the machine --------------------------------------------------------------------------------------------------


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def run(*command, **options):
    """Runs to the end, fails loudly; returns stdout."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if result.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command)}: exit {result.returncode}\n{result.stderr[-2000:]}")
    return result.stdout


def timed(*command):
    start = time.monotonic()
    run(*command)
    return time.monotonic() - start


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def warm_registry():
    """The server's disk is not what is measured: its blobs are in its memory."""
    subprocess.run(
        f"find {STORAGE}/docker/registry/v2/blobs -type f -exec cat {{}} + >/dev/null", shell=True, check=True
    )


def settle():
    """Waits up to 8 s for a machine that is nine tenths idle."""

    def ticks():
        with open("/proc/stat") as file:
            values = list(map(int, file.readline().split()[1:9]))
        return values[3] + values[4], sum(values)

    for _ in range(16):
        idle, total = ticks()
        time.sleep(0.5)
        idle_after, total_after = ticks()
        if idle_after - idle >= 0.9 * (total_after - total):
            return


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)


def reference(registry, name="golang"):
    return f"{registry}/library/{name}:latest"


class Traffic:
    """What went over the wire since `start`: requests by the registry's log, bytes by the proxy (else by the log)."""

    def __init__(self, registry):
        self.shaped = registry == SHAPED
        self.log_start = os.path.getsize(ACCESS_LOG)
        self.down_start = self.down()

    @staticmethod
    def down():
        with urllib.request.urlopen(CONTROL) as answer:
            return json.load(answer)["down"]

    def lines(self):
        time.sleep(0.2)
        with open(ACCESS_LOG) as file:
            file.seek(self.log_start)
            return [line for line in file if '"' in line]

    def requests(self):
        return len(self.lines())

    def megabytes(self):
        if self.shaped:
            return (self.down() - self.down_start) / 1e6
        return sum(int(line.split('" ')[1].split()[1]) for line in self.lines()) / 1e6


# ---- imgfs --------------------------------------------------------------------------------------------------------


def is_mounted(path):
    with open("/proc/self/mountinfo") as file:
        return any(line.split()[4] == path for line in file)


def imgfs_mount(ref, *options):
    """Seconds until the mount is ready; and the moment the command began."""
    os.makedirs(MOUNT, exist_ok=True)
    start = time.monotonic()
    run(IMGFS, "mount", "--plain-http", "--quiet", "--cache-dir", CACHE, *options, ref, MOUNT)
    return time.monotonic() - start, start


def imgfs_unmount():
    if not is_mounted(MOUNT):
        return
    daemon = None
    try:
        daemon = imgfs_status().get("pid")
    except SystemExit:
        pass
    if subprocess.run([IMGFS, "unmount", MOUNT], capture_output=True).returncode != 0:
        subprocess.run(["umount", "-l", MOUNT], check=True)
    # The next run is not to share the machine with this one's end.
    for _ in range(200):
        if daemon is None or not os.path.exists(f"/proc/{daemon}"):
            return
        time.sleep(0.02)


def imgfs_status():
    return json.loads(run(IMGFS, "status", "--json", MOUNT))


def imgfs_evict_data():
    run(IMGFS, "cache", "evict", "--data", env={**os.environ, "IMGFS_CACHE_DIR": CACHE})


def imgfs_memory():
    """VmRSS, VmHWM, RssAnon of the daemon in MiB."""
    fields = {}
    with open(f"/proc/{imgfs_status()['pid']}/status") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in ("VmRSS", "VmHWM", "RssAnon"):
                fields[name] = int(value.split()[0]) / 1024
    return fields["VmRSS"], fields["VmHWM"], fields["RssAnon"]


# ---- the others ---------------------------------------------------------------------------------------------------


class Podman:
    name = "podman"

    def __init__(self):
        self.command = [
            "podman", "--root", f"{BENCH}/podman/root", "--runroot", f"{BENCH}/podman/run",
            "--storage-driver", "overlay",
        ]  # fmt: skip

    def reset(self):
        subprocess.run([*self.command, "image", "umount", "--all"], capture_output=True)
        subprocess.run(["umount", "-l", f"{BENCH}/podman/root/overlay"], capture_output=True)
        fresh(f"{BENCH}/podman")

    def mount(self, ref):
        run(*self.command, "pull", "--quiet", "--tls-verify=false", ref)
        return run(*self.command, "image", "mount", ref).strip()


class Containerd:
    name = "containerd"

    def __init__(self):
        self.directory = f"{BENCH}/containerd"
        # A socket's path may have 107 characters.
        self.socket = f"/run/imgfs-bench-{os.getpid()}.sock"
        self.process = None
        atexit.register(self.stop)

    def stop(self):
        subprocess.run(["umount", f"{self.directory}/mount"], capture_output=True)
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def reset(self):
        self.stop()
        fresh(self.directory)
        os.makedirs(f"{self.directory}/mount")
        with open(f"{self.directory}/config.toml", "w") as file:
            file.write(
                f'version = 2\nroot = "{self.directory}/root"\nstate = "{self.directory}/state"\n'
                f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{self.socket}"\n'
            )
        log = open(f"{self.directory}/log", "w")
        self.process = subprocess.Popen(
            ["containerd", "--config", f"{self.directory}/config.toml"], stdout=log, stderr=log
        )
        for _ in range(200):
            if subprocess.run(["ctr", "-a", self.socket, "version"], capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        raise SystemExit("bench: containerd does not start")

    def mount(self, ref):
        run("ctr", "-a", self.socket, "images", "pull", "--plain-http", ref)
        run("ctr", "-a", self.socket, "images", "mount", ref, f"{self.directory}/mount")
        return f"{self.directory}/mount"


class Umoci:
    name = "umoci"

    def reset(self):
        fresh(f"{BENCH}/umoci")

    def mount(self, ref):
        layout = f"{BENCH}/umoci/layout:latest"
        run("skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{ref}", f"oci:{layout}")
        run("umoci", "unpack", "--image", layout, f"{BENCH}/umoci/bundle")
        return f"{BENCH}/umoci/bundle/rootfs"


def curl_blobs(registry, name="golang"):
    """Seconds curl needs for the image's config and layers, four at a time; and their bytes."""
    accept = {"Accept": "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"}

    def manifest(tag):
        request = urllib.request.Request(f"http://{LOCAL}/v2/library/{name}/manifests/{tag}", headers=accept)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    image = next(m for m in manifest("latest")["manifests"] if m["platform"]["architecture"] == "amd64")
    image = manifest(image["digest"])
    blobs = [image["config"], *image["layers"]]
    arguments = []
    for blob in blobs:
        arguments += ["-o", "/dev/null", f"http://{registry}/v2/library/{name}/blobs/{blob['digest']}"]
    return timed("curl", "-fsS", "--parallel", "--parallel-max", "4", *arguments), sum(b["size"] for b in blobs)


# ---- sections -----------------------------------------------------------------------------------------------------


def go_version(root):
    run("chroot", root, "/usr/bin/go", "version")


def prepare_first_contact():
    drop_caches()
    warm_registry()
    settle()


def first_contact(registry, rounds, peers):
    where = "shaped" if registry == SHAPED else "loopback"
    if registry == SHAPED:
        asked, met = "<= 1.08 x curl", lambda median: median("imgfs") <= 1.08 * median("ext4 or floor")
    else:
        asked = "4 x faster than each"
        met = lambda median: all(median("imgfs") * 4 <= median(peer.name) for peer in peers)  # noqa: E731
    ready = Row(f"first contact, {where}: ready (floor: curl)", "s", asked, met if peers or registry == SHAPED else None)
    go = Row(f"first contact, {where}: until go version")
    fetched = Row(f"first contact, {where}: fetched", "MB")
    requests = Row(f"first contact, {where}: requests", "")
    peak = Row(f"first contact, {where}: daemon's peak memory", "MiB")
    for _ in range(rounds):
        prepare_first_contact()
        seconds, size = curl_blobs(registry)
        ready.add("ext4 or floor", seconds)
        fetched.add("ext4 or floor", size / 1e6)

        imgfs_unmount()
        fresh(CACHE)
        prepare_first_contact()
        traffic = Traffic(registry)
        seconds, start = imgfs_mount(reference(registry))
        ready.add("imgfs", seconds)
        go_version(MOUNT)
        go.add("imgfs", time.monotonic() - start)
        fetched.add("imgfs", traffic.megabytes())
        requests.add("imgfs", traffic.requests())
        peak.add("imgfs", imgfs_memory()[1])
        imgfs_unmount()

        for peer in peers:
            peer.reset()
            prepare_first_contact()
            traffic = Traffic(registry)
            start = time.monotonic()
            root = peer.mount(reference(registry))
            ready.add(peer.name, time.monotonic() - start)
            go_version(root)
            go.add(peer.name, time.monotonic() - start)
            fetched.add(peer.name, traffic.megabytes())
            requests.add(peer.name, traffic.requests())
            peer.reset()


def fill_cache(name="golang"):
    """The image completely in the cache, whatever was there before; nothing mounted."""
    imgfs_unmount()
    shutil.rmtree(CACHE, ignore_errors=True)
    imgfs_mount(reference(LOCAL, name))
    imgfs_unmount()


def second_mount(rounds):
    tag = Row(
        "second mount, shaped, tag re-checked: ready", "ms", "<= 2 round trips + 50",
        lambda median: median("imgfs") <= 2000 * ROUND_TRIP + 50,
    )  # fmt: skip
    tag_requests = Row("second mount, tag re-checked: requests", "")
    loopback = Row("second mount, loopback, tag re-checked: ready", "ms")
    offline = Row("second mount, --offline: ready", "ms", "<= 50", lambda median: median("imgfs") <= 50)
    digest = Row("second mount, by digest: ready", "ms", "<= 50", lambda median: median("imgfs") <= 50)
    none = Row("second mount, --offline or digest: requests", "", "0", lambda median: median("imgfs") == 0)
    go = Row("second mount, --offline: until go version", "s", "<= 0.12", lambda median: median("imgfs") <= 0.12)
    go_cold = Row("second mount, --offline, page cache dropped: until go version")

    request = urllib.request.Request(
        f"http://{LOCAL}/v2/library/golang/manifests/latest",
        headers={"Accept": "application/vnd.oci.image.index.v1+json"},
        method="HEAD",
    )
    with urllib.request.urlopen(request) as answer:
        by_digest = f"{SHAPED}/library/golang@{answer.headers['Docker-Content-Digest']}"

    fill_cache()
    # The record of a tag belongs to the registry's name, and the proxy is another one.
    for ref in (reference(SHAPED), by_digest):
        imgfs_mount(ref)
        imgfs_unmount()
    settle()
    for _ in range(rounds):
        traffic = Traffic(SHAPED)
        tag.add("imgfs", imgfs_mount(reference(SHAPED))[0] * 1000)
        tag_requests.add("imgfs", traffic.requests())
        imgfs_unmount()
        loopback.add("imgfs", imgfs_mount(reference(LOCAL))[0] * 1000)
        imgfs_unmount()
        traffic = Traffic(SHAPED)
        seconds, start = imgfs_mount(reference(SHAPED), "--offline")
        go_version(MOUNT)
        go.add("imgfs", time.monotonic() - start)
        offline.add("imgfs", seconds * 1000)
        imgfs_unmount()
        digest.add("imgfs", imgfs_mount(by_digest)[0] * 1000)
        imgfs_unmount()
        none.add("imgfs", traffic.requests())
        drop_caches()
        _, start = imgfs_mount(reference(SHAPED), "--offline")
        go_version(MOUNT)
        go_cold.add("imgfs", time.monotonic() - start)
        imgfs_unmount()


class LazyDemands:
    """What a mount without data has to reach, in seconds from the command on, MB in all, ms. None asks nothing."""

    def __init__(self, ready=None, hello=None, go=None, go_megabytes=None, numpy=None, whole=None, read=None):
        self.ready, self.hello, self.go, self.go_megabytes = ready, hello, go, go_megabytes
        self.numpy, self.whole, self.read = numpy, whole, read


def keep_indexes():
    """Before each lazy mount: the indexes stay, the data goes."""
    imgfs_unmount()
    imgfs_evict_data()


def lazy_once(ref, options, prepare, ask):
    """Mounts through the shaped net after `prepare()` and does `ask(start)`, `start` being when the command began.
    Seconds until ready, MB over the wire and requests in all, and the answer."""
    prepare()
    prepare_first_contact()
    traffic = Traffic(SHAPED)
    seconds, start = imgfs_mount(ref, *options)
    answer = ask(start)
    # Before the unmount: what is still on its way belongs to this run.
    result = seconds, traffic.megabytes(), traffic.requests(), answer
    imgfs_unmount()
    return result


def chroot_until(*command):
    """For `lazy_once`: seconds from the mount's command until this one, in the image, has ended."""

    def ask(start):
        run("chroot", MOUNT, *command)
        return time.monotonic() - start

    return ask


def read_whole(start):
    """For `lazy_once`: seconds from the mount's command until every byte of the image was read."""
    subprocess.run(f"tar -C {MOUNT} -cf - . 2>/dev/null | cat >/dev/null", shell=True, check=True)
    return time.monotonic() - start


def read_at_random(reads, seed):
    """For `lazy_once`: milliseconds of each of so many reads of 4 KiB, one after the other, at random places of random
    files, each file as likely as any other of at least 4 KiB."""

    def ask(_start):
        generator = random.Random(seed)
        files = []
        for directory, directories, names in os.walk(MOUNT):
            directories.sort()
            for name in sorted(names):
                path = os.path.join(directory, name)
                if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) >= 4096:
                    files.append((path, os.path.getsize(path)))
        latencies = []
        for _ in range(reads):
            path, size = generator.choice(files)
            offset = generator.randrange(size // 4096) * 4096
            before = time.perf_counter_ns()
            with open(path, "rb", buffering=0) as file:
                os.pread(file.fileno(), 4096, offset)
            latencies.append((time.perf_counter_ns() - before) / 1e6)
        return latencies

    return ask


def measure_lazy(label, registry_reference, options, demands, prepare=keep_indexes, rounds=1, python=None, whole=True):
    """One kind of lazy mount through the shaped net, as rows that begin with `label`.

    `registry_reference` is the Go image; `python`, where there is one, the Python image. `options` go to `imgfs mount`.
    `prepare()` makes the cache what it is to be before each mount: without data (`keep_indexes`), or empty."""

    def row(what, unit="s", limit=None):
        met = (lambda median: median("imgfs") <= limit) if limit is not None else None
        return Row(f"{label}: {what}", unit, f"<= {limit:g}" if limit is not None else "", met)

    ready = row("ready", "s", demands.ready)
    hello = row("until a small static program ran", "s", demands.hello)
    go = row("until go version", "s", demands.go)
    go_fetched = row("fetched for go version", "MB", demands.go_megabytes)
    go_requests = row("requests for go version", "")
    numpy = row("until python3 imported numpy", "s", demands.numpy)
    numpy_fetched = row("fetched for numpy", "MB")
    numpy_requests = row("requests for numpy", "")
    reading = row("100 random 4 KiB reads, median", "ms", demands.read)
    slow_reading = row("100 random 4 KiB reads, 9 of 10 within", "ms")
    reading_fetched = row("fetched for 100 random reads", "MB")
    everything = row("until everything was read", "s", demands.whole)
    everything_fetched = row("fetched for everything", "MB")

    def once(ref, ask):
        return lazy_once(ref, options, prepare, ask)

    for number in range(rounds):
        seconds, megabytes, requests, until = once(registry_reference, chroot_until("/usr/bin/go", "version"))
        ready.add("imgfs", seconds)
        go.add("imgfs", until)
        go_fetched.add("imgfs", megabytes)
        go_requests.add("imgfs", requests)
        hello.add("imgfs", once(registry_reference, chroot_until("/go/bin/hello"))[3])
        if python:
            _, megabytes, requests, until = once(python, chroot_until("/usr/bin/python3", "-c", "import numpy"))
            numpy.add("imgfs", until)
            numpy_fetched.add("imgfs", megabytes)
            numpy_requests.add("imgfs", requests)
        _, megabytes, _, latencies = once(registry_reference, read_at_random(100, number))
        latencies.sort()
        reading.add("imgfs", statistics.median(latencies))
        slow_reading.add("imgfs", latencies[len(latencies) * 9 // 10])
        reading_fetched.add("imgfs", megabytes)
        if whole:
            _, megabytes, _, until = once(registry_reference, read_whole)
            everything.add("imgfs", until)
            everything_fetched.add("imgfs", megabytes)


def lazy(rounds):
    """The index is cached, the data is not."""
    fill_cache("golang")
    for registry, name in ((LOCAL, "python"), (SHAPED, "golang"), (SHAPED, "python")):
        imgfs_mount(reference(registry, name))
        imgfs_unmount()
    demands = LazyDemands(ready=0.4, hello=0.5, go=1.15, go_megabytes=9, numpy=2.65, whole=14.0, read=60)
    measure_lazy(
        "index cached, shaped", reference(SHAPED), [], demands, rounds=rounds, python=reference(SHAPED, "python")
    )  # fmt: skip


# Each kind of index: a name for people, the tags' name, and how many MB `go version` may take.
INDEXED = (
    ("eStargz", "estargz", 9),
    ("zstd:chunked (containers)", "zstdchunked", 9),
    ("zstd:chunked (stargz)", "zstdchunked-stargz", 9),
    ("SOCI on gzip", "soci", 12),
    ("own index on gzip", "latest", 12),
)


def empty_cache():
    imgfs_unmount()
    fresh(CACHE)


def publish_indexes():
    """Own indexes of both images, signed; the options for a mount that believes them."""
    private, public = f"{BENCH}/index-key.pem", f"{BENCH}/index-key.pub"
    if not os.path.exists(public):
        run("openssl", "genpkey", "-algorithm", "ed25519", "-out", private)
        run("openssl", "pkey", "-in", private, "-pubout", "-out", public)
    empty_cache()
    index_size = Row("own index on gzip: size of the golang image's indexes", "MB")
    share = Row("own index on gzip: share of the largest layer", "%", "<= 1.5", lambda median: median("imgfs") <= 1.5)
    for name in ("golang", "python"):
        told = run(
            IMGFS, "index", "push", "--json", "--plain-http", "--quiet", "--cache-dir", CACHE, "--sign", private,
            reference(LOCAL, name),
        )  # fmt: skip
        if name == "golang":
            layers = json.loads(told)[0]["layers"]
            index_size.add("imgfs", sum(layer["index_size"] for layer in layers) / 1e6)
    shown = json.loads(
        run(IMGFS, "index", "show", "--json", "--plain-http", "--cache-dir", CACHE, reference(LOCAL, "golang"))
    )
    largest = max(shown, key=lambda layer: layer["size"])
    share.add("imgfs", 100 * largest["index_size"] / largest["size"])
    return ["--index-key", public]


def indexed(rounds):
    """First mounts, with an empty cache, of images that somebody prepared or indexed."""
    options = publish_indexes()
    for label, tag, megabytes in INDEXED:
        demands = LazyDemands(
            ready=0.45, hello=0.8, go=1.5, go_megabytes=megabytes, numpy=3.0, whole=1.15 * 12.2, read=60
        )
        measure_lazy(
            label, f"{SHAPED}/library/golang:{tag}", options if tag == "latest" else [], demands, prepare=empty_cache,
            rounds=rounds, python=f"{SHAPED}/library/python:{tag}",
        )  # fmt: skip


def random_reads(root, reads, cold):
    """Reads per second, and the median and 99th percentile in microseconds, of 4 KiB at random aligned places."""
    generator = random.Random(4096)
    files = []
    for directory, directories, names in os.walk(root):
        directories.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) > 64 * 1024:
                files.append((path, os.path.getsize(path)))
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard_limit, 16384), hard_limit))
    files = generator.sample(files, min(len(files), 4000))
    handles = [os.open(path, os.O_RDONLY) for path, _ in files]
    plan = []
    for _ in range(reads):
        # Every file is as likely as any other, whatever its size.
        chosen = generator.randrange(len(files))
        plan.append((handles[chosen], generator.randrange(files[chosen][1] // 4096) * 4096))
    if cold:
        drop_caches()
        settle()
    else:
        for handle, offset in plan:
            os.pread(handle, 4096, offset)
    clock, latencies = time.perf_counter_ns, []
    start = clock()
    for handle, offset in plan:
        before = clock()
        os.pread(handle, 4096, offset)
        latencies.append(clock() - before)
    seconds = (clock() - start) / 1e9
    for handle in handles:
        os.close(handle)
    latencies.sort()
    return reads / seconds, latencies[len(latencies) // 2] / 1000, latencies[len(latencies) * 99 // 100] / 1000


def unpack_plain():
    """Umoci's tree of golang in PLAIN, kept from run to run while the image stays the same."""
    with open(f"{WORK}/images/golang/index.json") as file:
        wanted = file.read()
    stamp = f"{PLAIN}.index.json"
    if os.path.isdir(PLAIN) and os.path.exists(stamp):
        with open(stamp) as file:
            if file.read() == wanted:
                return
    shutil.rmtree(PLAIN, ignore_errors=True)
    peer = Umoci()
    peer.reset()
    peer.mount(reference(LOCAL))
    os.rename(f"{BENCH}/umoci/bundle/rootfs", PLAIN)
    peer.reset()
    with open(stamp, "w") as file:
        file.write(wanted)


def crawl(rounds):
    """One of eight connections gives 1 MiB/s: a first contact over 200 Mbit/s, and over the loopback's speed."""
    for where, mbit in (("200 Mbit/s", 200), ("2 Gbit/s", 2000)):
        healthy = Row(f"first contact, {where}: ready, all connections healthy")
        crawling = Row(
            f"first contact, {where}: ready, one of eight at 1 MiB/s",
            "s",
            "<= 1.3 x healthy",
            lambda median, healthy=healthy: median("imgfs") <= 1.3 * healthy.median("imgfs"),
        )
        more = Row(f"first contact, {where}: bytes more for that", "MB")
        requests = Row(f"first contact, {where}: requests more for that", "")
        for _ in range(rounds):
            bytes_healthy, requests_healthy = crawl_once(mbit, 0, healthy)
            bytes_crawling, requests_crawling = crawl_once(mbit, 8, crawling)
            more.add("imgfs", bytes_crawling - bytes_healthy)
            requests.add("imgfs", requests_crawling - requests_healthy)


def crawl_once(mbit, every, row):
    """A first contact through a proxy of its own; megabytes and requests."""
    port, control = 5420, 5421
    options = ["--listen", str(port), "--to", LOCAL.split(":")[1], "--control", str(control)]
    options += ["--mbit", str(mbit), "--crawl-every", str(every)]
    proxy = subprocess.Popen([os.path.join(os.path.dirname(__file__), "shaping-proxy"), *options])
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{control}/").close()
                break
            except OSError:
                time.sleep(0.05)
        imgfs_unmount()
        fresh(CACHE)
        prepare_first_contact()
        traffic = Traffic(LOCAL)
        row.add("imgfs", imgfs_mount(reference(f"127.0.0.1:{port}"))[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{control}/") as answer:
            down = json.load(answer)["down"] / 1e6
        imgfs_unmount()
        return down, traffic.requests()
    finally:
        proxy.terminate()
        proxy.wait()


def local(rounds):
    """Everything cached: the mount against the same tree unpacked on the disk's own filesystem."""
    imgfs, plain = "imgfs", "ext4 or floor"

    def at_most(factor):
        return lambda median: median(imgfs) <= factor * median(plain)

    find = {
        True: Row("cached: find -printf %s, cold", "s", "<= 1.3 x ext4", at_most(1.3)),
        False: Row("cached: find -printf %s, warm", "s", "<= 1.5 x ext4", at_most(1.5)),
    }
    tar = {
        True: Row("cached: tar of everything, cold", "s", ">= 0.9 x ext4's speed", at_most(1 / 0.9)),
        False: Row("cached: tar of everything, warm", "s", ">= 0.8 x ext4's speed", at_most(1 / 0.8)),
    }
    reads = {
        True: Row(
            "cached: random 4 KiB reads, cold", "/s", ">= 12,000 where ext4 does 22,500",
            lambda median: median(imgfs) >= 12000 / 22500 * median(plain),
        ),
        False: Row("cached: random 4 KiB reads, warm", "/s"),
    }  # fmt: skip
    middle = Row("cached: random 4 KiB reads, cold: p50", "us")
    tail = Row("cached: random 4 KiB reads, cold: p99", "us")
    index = Row("index, of the compressed image", "%", "<= 1.5", lambda median: median(imgfs) <= 1.5)
    largest = Row("index, of the largest layer", "%", "<= 1.5", lambda median: median(imgfs) <= 1.5)
    memory = Row("daemon's memory after a full read (VmRSS)", "MiB", "<= 64", lambda median: median(imgfs) <= 64)
    peak = Row("daemon's memory after a full read (VmHWM)", "MiB")
    anonymous = Row("daemon's memory after a full read (RssAnon)", "MiB")

    unpack_plain()
    fill_cache()
    imgfs_mount(reference(LOCAL), "--offline")
    trees = {plain: PLAIN, imgfs: MOUNT}
    shell = {
        "find": "find . -printf '%s\\n' >/dev/null",
        # Not -f /dev/null: tar then reads nothing.
        "tar": "tar -cf - . | cat >/dev/null",
    }

    def timed_shell(what, tree):
        start = time.monotonic()
        subprocess.run(shell[what], shell=True, check=True, cwd=tree, stderr=subprocess.DEVNULL)
        return time.monotonic() - start

    for _ in range(rounds):
        for what, rows in (("find", find), ("tar", tar)):
            for column, tree in trees.items():
                drop_caches()
                settle()
                rows[True].add(column, timed_shell(what, tree))
                # Warm is the better of two: the second reading after the cold one.
                rows[False].add(column, min(timed_shell(what, tree) for _ in range(2)))
        for column, tree in trees.items():
            rate, p50, p99 = random_reads(tree, 20000, cold=True)
            reads[True].add(column, rate)
            middle.add(column, p50)
            tail.add(column, p99)
            reads[False].add(column, random_reads(tree, 20000, cold=False)[0])
    for row, value in zip((memory, peak, anonymous), imgfs_memory()):
        row.add(imgfs, value)
    layers = imgfs_status()["layers"]
    if all(layer.get("index_bytes") for layer in layers):
        index.add(imgfs, 100 * sum(layer["index_bytes"] for layer in layers) / sum(layer["size"] for layer in layers))
        biggest = max(layers, key=lambda layer: layer["size"])
        largest.add(imgfs, 100 * biggest["index_bytes"] / biggest["size"])
    imgfs_unmount()


def many(rounds):
    """Many mounts: of one process by the library, and of as many processes by the command."""
    further = Row("200 mounts in one process: memory for each further mount of an image", "MiB", "<= 2", lambda median: median("imgfs") <= 2)
    other = Row("200 mounts in one process: memory for an image of 20,000 files more", "MiB", "<= 6", lambda median: median("imgfs") <= 6)
    first = Row("200 mounts in one process: ready, the first of the image", "ms")
    last = Row(
        "200 mounts in one process: ready, the 200th", "ms", "<= 1.5 x the first",
        lambda median: median("imgfs") <= 1.5 * first.median("imgfs"),
    )
    unknown = Row("60 processes mount one image, its DiffIds unknown: all ready")
    known = Row("60 processes mount one image, its DiffIds known: all ready")

    fill_cache("python")
    imgfs_mount(reference(LOCAL))
    imgfs_unmount()
    program = os.path.join(os.path.dirname(IMGFS), "examples", "many-mounts")
    for _ in range(rounds):
        settle()
        measured = json.loads(run(program, CACHE, "200", reference(LOCAL), reference(LOCAL, "python")))
        further.add("imgfs", measured["further_mount_kib"] / 1024)
        other.add("imgfs", measured["other_image_kib"] / 1024)
        first.add("imgfs", measured["first_seconds"] * 1000)
        last.add("imgfs", measured["last_seconds"] * 1000)
    for _ in range(rounds):
        for row in (unknown, known):
            if row is unknown:
                for noted in pathlib.Path(CACHE).glob("v1/layers/*/*/diff_id"):
                    noted.unlink()
            settle()
            row.add("imgfs", mount_at_once(60))


def mount_at_once(count):
    """Seconds until so many processes, started together, have mounted the same image. They are unmounted again."""
    base = os.path.join(BENCH, "many")
    dirs = [os.path.join(base, str(i)) for i in range(count)]
    for path in dirs:
        os.makedirs(path, exist_ok=True)
    command = [IMGFS, "--cache-dir", CACHE, "--quiet", "mount", "--offline", reference(LOCAL)]
    try:
        started = time.monotonic()
        mounting = [subprocess.Popen([*command, path]) for path in dirs]
        failed = [process.wait() for process in mounting]
        took = time.monotonic() - started
        assert not any(failed), failed
        return took
    finally:
        for path in dirs:
            subprocess.run([IMGFS, "unmount", path], stderr=subprocess.DEVNULL, check=False)


def million(rounds):
    warm = Row("1,000,000 files, index cached: ready, warm", "s", "<= 1", lambda median: median("imgfs") <= 1)
    cold = Row("1,000,000 files, index cached: ready, cold", "s", "<= 1", lambda median: median("imgfs") <= 1)
    find = Row("1,000,000 files: find -printf %s, first after the mount")
    ready_memory = Row("1,000,000 files: memory a file when ready (VmRSS)", "B")
    memory = Row("1,000,000 files: memory a file after find (VmRSS)", "B", "<= 200", lambda median: median("imgfs") <= 200)
    first = Row("1,000,000 files: first contact, loopback (floor: curl)")
    index = Row("1,000,000 files: index a file", "B")

    imgfs_unmount()
    fresh(CACHE)
    prepare_first_contact()
    first.add("ext4 or floor", curl_blobs(LOCAL, "million")[0])
    first.add("imgfs", imgfs_mount(reference(LOCAL, "million"))[0])
    imgfs_unmount()
    for _ in range(rounds):
        for row, is_cold in ((cold, True), (warm, False)):
            if is_cold:
                drop_caches()
            settle()
            row.add("imgfs", imgfs_mount(reference(LOCAL, "million"), "--offline")[0])
            if not is_cold:
                ready_memory.add("imgfs", imgfs_memory()[0] * 1048576 / 1e6)
                find.add("imgfs", timed("sh", "-c", f"find {MOUNT} -printf '%s\\n' >/dev/null"))
                memory.add("imgfs", imgfs_memory()[0] * 1048576 / 1e6)
                index.add("imgfs", sum(layer.get("index_bytes", 0) for layer in imgfs_status()["layers"]) / 1e6)
            imgfs_unmount()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--only", action="append", choices=SECTIONS, default=[])
    options = parser.parse_args()
    wanted = options.only or SECTIONS

    atexit.register(imgfs_unmount)
    imgfs_unmount()
    peers = [] if options.no_peers else [Podman(), Containerd(), Umoci()]
    for peer in peers:
        atexit.register(peer.reset)

    def rounds(full):
        return 1 if options.quick else full

    started = time.monotonic()
    try:
        if "first-shaped" in wanted:
            first_contact(SHAPED, rounds(3), peers)
        if "first-local" in wanted:
            first_contact(LOCAL, rounds(3), peers)
        if "second" in wanted:
            second_mount(rounds(11))
        if "lazy" in wanted:
            lazy(rounds(5))
        if "indexed" in wanted:
            indexed(rounds(3))
        if "local" in wanted:
            local(rounds(5))
        if "many" in wanted:
            many(rounds(3))
        if "million" in wanted:
            million(rounds(5))
        if "crawl" in wanted:
            crawl(rounds(3))
    finally:
        save_results()
        print_table()
    say(f"took {(time.monotonic() - started) / 60:.1f} minutes; raw figures in {BENCH}/results.json")


if __name__ == "__main__":
    main()
