#!/bin/sh
# A file that a process maps over its own arguments is not in its /proc/PID/cmdline.
#
# Guess: cmdline is whatever lies between arg_start and arg_end, so that a page of a file mapped there shows the file, and a
# page that never comes (FUSE) hangs whoever reads it. Seen on Linux 6.18: the kernel reads anonymous pages only (FOLL_ANON,
# fs/proc/base.c, since 4.17) and ends the text where the file begins; ps(1) neither shows the file nor waits for it.
#
# Needs Python 3 (standard library). Fails if the file's content shows, or if nothing shows.
set -eu
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 - <<'P'
import ctypes, os, subprocess, sys
child = r'''
import ctypes, mmap, os, sys
fields = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
begin, end = int(fields[45]), int(fields[46])
page = (begin + 8191) & ~4095
assert page + 4096 < end
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
fd = os.open("content", os.O_RDONLY)
PROT_READ, MAP_PRIVATE, MAP_FIXED = 1, 2, 16
assert libc.mmap(page, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == page
print(page - begin, end - begin, flush=True)
sys.stdin.read()
'''
open("content", "w").write("F" * 4096)
p = subprocess.Popen([sys.executable, "-c", child, "a" * 65536], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
before, whole = map(int, p.stdout.readline().split())
text = open(f"/proc/{p.pid}/cmdline", "rb").read()
p.stdin.close(); p.wait()
print(f"Linux {os.uname().release}: arguments of {whole} bytes, a file over them from byte {before} on: cmdline has {len(text)} bytes, {text.count(b'F' * 16)} of the file")
sys.exit(0 if 0 < len(text) < whole and b"F" * 16 not in text else 1)
P
