#!/usr/bin/env python3
"""Golden vectors of the formats in docs/formats.md, by an implementation that shares nothing with the program.

XChaCha20-Poly1305 is written here from RFC 8439 and draft-irtf-cfrg-xchacha-03 and checked against the published vector
of the draft; BLAKE2b is Python's hashlib. Inputs come from a hash of their position, so a run is reproducible.

  generate.py            writes the files beside this script
  generate.py --check    exit 1 when a file in git differs from what would be written
"""
import base64
import hashlib
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent


# --- primitives ------------------------------------------------------------------------------------------------------
def rotl(value, count):
    return ((value << count) & 0xFFFFFFFF) | (value >> (32 - count))


def quarter(s, a, b, c, d):
    s[a] = (s[a] + s[b]) & 0xFFFFFFFF
    s[d] = rotl(s[d] ^ s[a], 16)
    s[c] = (s[c] + s[d]) & 0xFFFFFFFF
    s[b] = rotl(s[b] ^ s[c], 12)
    s[a] = (s[a] + s[b]) & 0xFFFFFFFF
    s[d] = rotl(s[d] ^ s[a], 8)
    s[c] = (s[c] + s[d]) & 0xFFFFFFFF
    s[b] = rotl(s[b] ^ s[c], 7)


CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")


def rounds(state):
    s = list(state)
    for _ in range(10):
        quarter(s, 0, 4, 8, 12)
        quarter(s, 1, 5, 9, 13)
        quarter(s, 2, 6, 10, 14)
        quarter(s, 3, 7, 11, 15)
        quarter(s, 0, 5, 10, 15)
        quarter(s, 1, 6, 11, 12)
        quarter(s, 2, 7, 8, 13)
        quarter(s, 3, 4, 9, 14)
    return s


def chacha20_block(key, counter, nonce12):
    state = list(CONSTANTS) + list(struct.unpack("<8I", key)) + [counter] + list(struct.unpack("<3I", nonce12))
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(rounds(state), state)))


def hchacha20(key, nonce16):
    s = rounds(list(CONSTANTS) + list(struct.unpack("<8I", key)) + list(struct.unpack("<4I", nonce16)))
    return struct.pack("<8I", *(s[0:4] + s[12:16]))


def poly1305(key, message):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at:at + 16] + b"\x01", "little")) * r % ((1 << 130) - 5)
    return ((total + int.from_bytes(key[16:], "little")) & ((1 << 128) - 1)).to_bytes(16, "little")


def pad16(data):
    return data + bytes(-len(data) % 16)


def xchacha20poly1305(key, nonce, plaintext, aad):
    """ciphertext | tag"""
    subkey = hchacha20(key, nonce[:16])
    nonce12 = bytes(4) + nonce[16:]
    ciphertext = bytearray()
    for at in range(0, len(plaintext), 64):
        stream = chacha20_block(subkey, 1 + at // 64, nonce12)
        ciphertext += bytes(a ^ b for a, b in zip(plaintext[at:at + 64], stream))
    one_time = chacha20_block(subkey, 0, nonce12)[:32]
    lengths = struct.pack("<QQ", len(aad), len(ciphertext))
    return bytes(ciphertext) + poly1305(one_time, pad16(aad) + pad16(bytes(ciphertext)) + lengths)


def check_primitives():
    # draft-irtf-cfrg-xchacha-03, A.3.1
    sealed = xchacha20poly1305(
        bytes(range(0x80, 0xA0)), bytes(range(0x40, 0x58)),
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it.", bytes.fromhex("50515253c0c1c2c3c4c5c6c7"))
    assert sealed[:16].hex() == "bd6d179d3e83d43b9576579493c0e939", sealed[:16].hex()
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49", sealed[-16:].hex()


def blake2b(key, message, size=32):
    return hashlib.blake2b(message, key=key, digest_size=size).digest()


def kdf(key, subkey_id, context):
    """crypto_kdf_derive_from_key: BLAKE2b with the id as salt and the context as personalisation."""
    return hashlib.blake2b(b"", key=key, digest_size=32, salt=struct.pack("<Q", subkey_id) + bytes(8),
                           person=context + bytes(8)).digest()


# --- formats ---------------------------------------------------------------------------------------------------------
def canonical(label, *fields):
    out = b""
    for field in (label,) + fields:
        if field is None:
            out += struct.pack(">BI", 0, 0)
        elif isinstance(field, int):
            out += struct.pack(">BIQ", 1, 8, field & 0xFFFFFFFFFFFFFFFF)
        else:
            value = field.encode() if isinstance(field, str) else field
            out += struct.pack(">BI", 2, len(value)) + value
    return out


def seal(dek, nonce, content, aad):
    return b"\x01\x01" + nonce + xchacha20poly1305(dek, nonce, content, aad)


def wrap(kek, kek_id, nonce, key, aad):
    return struct.pack(">BBI", 1, 1, kek_id) + nonce + xchacha20poly1305(kdf(kek, 1, b"lk-wrap_"), nonce, key, aad)


def key_check_value(kek, store_id, kek_id):
    return blake2b(kdf(kek, 2, b"lk-kcv__"), canonical("lk/v1/kcv", store_id, kek_id), 16)


def checksum(key, secret_id, content):
    return blake2b(key, canonical("lk/v1/sum", secret_id, content))


def chain_hash(key, previous, chain_id, seq, event):
    return blake2b(key, canonical("lk/v1/chain", previous, chain_id, seq, event))


def kek_file(kek, kek_id):
    typing = hashlib.blake2b(canonical("lk/v1/kek-file", kek_id, kek), digest_size=32).digest()[:8]
    text = base64.urlsafe_b64encode(kek).decode().rstrip("=")
    return f"lkkek1.{kek_id}.{text}.{typing.hex()}"


# --- inputs ----------------------------------------------------------------------------------------------------------
def stream(name, size):
    """Reproducible bytes for a name."""
    out = b""
    counter = 0
    while len(out) < size:
        out += hashlib.blake2b(f"{name}/{counter}".encode()).digest()
        counter += 1
    return out[:size]


def number(name, bits=63):
    return int.from_bytes(stream(name, 8), "big") >> (64 - bits)


class Vectors:
    def __init__(self, name, about):
        self.path = HERE / name
        self.lines = [f"# source: docs/formats.md, {about}",
                      "# generator: tests/vectors/generate.py (its own implementation; `generate.py --check` compares)"]

    def add(self, name, /, **fields):
        self.lines += ["", f"[{name}]"]
        for key, value in fields.items():
            if value is None:
                text = "null"
            elif isinstance(value, bytes):
                text = "hex:" + value.hex()
            elif isinstance(value, int):
                text = str(value)
            else:
                text = "text:" + value
            self.lines.append(f"{key} = {text}")

    def text(self):
        return "\n".join(self.lines) + "\n"


def canonical_vectors():
    out = Vectors("canonical.txt", '"Canonical encoding"')
    cases = [
        ("worked", "lk/v1/example", [None, 7, b"ab"]),
        ("no_fields", "lk/v1/example", []),
        ("null_only", "lk/v1/example", [None]),
        ("zero", "lk/v1/example", [0]),
        ("largest", "lk/v1/example", [0xFFFFFFFFFFFFFFFF]),
        ("empty_bytes", "lk/v1/example", [b""]),
        ("split_one_way", "lk/v1/example", [b"ab", b"c"]),
        ("split_other_way", "lk/v1/example", [b"a", b"bc"]),
        ("bytes_that_look_like_a_number", "lk/v1/example", [struct.pack(">Q", 7)]),
        ("bytes_that_look_like_fields", "lk/v1/example", [canonical("x", None, 1)]),
        ("separator", "lk/v1/example", [b"a|b", b"|"]),
        ("empty_label", "", [1]),
        ("long", "lk/v1/example", [stream("long", 300), 300, None, stream("long2", 70)]),
    ]
    for name, label, fields in cases:
        values = {f"field{i}": f for i, f in enumerate(fields)}
        out.add(name, label=label, fields=len(fields), **values, encoded=canonical(label, *fields))
    return out


def envelope_vectors():
    out = Vectors("envelopes.txt", '"Sealing a version"')
    sizes = [12] + list(range(0, 34)) + [47, 48, 49, 63, 64, 65, 79, 80, 95, 96, 127, 128, 129, 191, 192, 193, 255, 256, 257, 511,
                                         512, 513, 1000, 1023, 1024, 1025, 2047, 2048, 2049, 4096, 5000]
    for i, size in enumerate(sizes):
        name = "worked" if i == 0 else f"size_{size}"
        content = b"correct hors" if i == 0 else stream(f"content{i}", size)
        dek = stream(f"dek{i}", 32)
        nonce = stream(f"nonce{i}", 24)
        bound = stream(f"aad{i}", i % 40)
        out.add(name, dek=dek, nonce=nonce, label="lk/v1/example", bound=bound, content=content,
                sealed=seal(dek, nonce, content, canonical("lk/v1/example", bound)))
    return out


def wrap_vectors():
    out = Vectors("wrapped.txt", '"Wrapping a key"')
    for i, kek_id in enumerate([1, 0, 2, 255, 256, 65536, 0x01020304, 0xFFFFFFFF]):
        kek, nonce, key = stream(f"kek{i}", 32), stream(f"wnonce{i}", 24), stream(f"key{i}", 32)
        bound = stream(f"waad{i}", 5 * i)
        out.add("worked" if i == 0 else f"kek_{kek_id}", kek=kek, kek_id=kek_id, nonce=nonce, key=key,
                label="lk/v1/example", bound=bound,
                wrapped=wrap(kek, kek_id, nonce, key, canonical("lk/v1/example", bound)))
    return out


def hash_vectors():
    kcv = Vectors("kcv.txt", '"Key check value"')
    mac = Vectors("mac.txt", '"Row MACs"')
    sums = Vectors("checksum.txt", '"Checksum of content"')
    chain = Vectors("chain.txt", '"Audit chains"')
    for i in range(6):
        name = "worked" if i == 0 else f"case_{i}"
        kek, store = stream(f"hkek{i}", 32), stream(f"hstore{i}", 16)
        kek_id = number(f"hid{i}", 32)
        kcv.add(name, kek=kek, store_id=store, kek_id=kek_id, value=key_check_value(kek, store, kek_id))
        key, bound = stream(f"mkey{i}", 32), stream(f"mfield{i}", 37 * i)
        mac.add(name, key=key, label="lk/v1/example", bound=bound, number=i,
                value=blake2b(key, canonical("lk/v1/example", bound, i)))
        secret_id, content = number(f"sid{i}", 64) - (1 << 63), stream(f"scontent{i}", 61 * i + 1)
        sums.add(name, key=key, secret_id=secret_id, content=content, value=checksum(key, secret_id, content))
        previous, event = stream(f"prev{i}", 32) if i else bytes(32), stream(f"event{i}", 50 * i + 9)
        chain_id = "store" if i % 2 == 0 else "access:server-1"
        seq = i + 1 if i < 5 else 0xFFFFFFFFFFFFFFFF
        chain.add(name, key=key, previous=previous, chain_id=chain_id, seq=seq, event=event,
                  value=chain_hash(key, previous, chain_id, seq, event))
    return [kcv, mac, sums, chain]


def store_vectors():
    """Everything that server/keys computes for one store."""
    store = stream("store", 16)
    kek, kek_id = stream("store-kek", 32), 7
    files = Vectors("kek_file.txt", '"Key file"')
    for i, ident in enumerate([1, 7, 4294967295]):
        key = stream(f"filekek{i}", 32)
        files.add("worked" if i == 0 else f"kek_{ident}", kek=key, kek_id=ident, line=kek_file(key, ident))
    files.add("of_store", kek=kek, kek_id=kek_id, line=kek_file(kek, kek_id))

    ring = Vectors("keyring.txt", '"Keyring"')
    keys = {}
    for purpose in ["mac", "audit", "sum", "session", "state"]:
        keys[purpose] = stream(f"key-{purpose}", 32)
        nonce = stream(f"ring-{purpose}", 24)
        ring.add(purpose, store_id=store, kek=kek, kek_id=kek_id, purpose=purpose, key=keys[purpose], nonce=nonce,
                 kcv=key_check_value(kek, store, kek_id),
                 wrapped=wrap(kek, kek_id, nonce, keys[purpose], canonical("lk/v1/keyring", purpose, store, kek_id)))

    versions = Vectors("version.txt", '"A version in full"')
    for i, (created_by, expiry, metadata) in enumerate([
            ("deploy", 0, '{"mode":"0440"}'), ("", 1893456000, "{}"), ("J\u00f6rg", 1, '{"owner":"app|web","mode":"0400"}'),
            ("automation", 0, '{"description":"' + "x" * 900 + '"}')]):
        secret_id, version_id = number(f"vs{i}", 64) - (1 << 63), number(f"vv{i}", 64) - (1 << 63)
        created_at = 1700000000 + i
        content = b"hunter2" if i == 0 else stream(f"vcontent{i}", 100 * i)
        dek, nonce, wrap_nonce = stream(f"vdek{i}", 32), stream(f"vnonce{i}", 24), stream(f"vwrap{i}", 24)
        total = checksum(keys["sum"], secret_id, content)
        versions.add("worked" if i == 0 else f"case_{i}", secret_id=secret_id, version_id=version_id,
                     created_at=created_at, created_by=created_by, expiry=expiry, metadata=metadata, content=content,
                     dek=dek, checksum=total,
                     sealed=seal(dek, nonce, content,
                                 canonical("lk/v1/content", store, secret_id, version_id, created_at, created_by, expiry,
                                           metadata, total)),
                     wrapped=wrap(kek, kek_id, wrap_nonce, dek,
                                  canonical("lk/v1/dek", store, secret_id, version_id, kek_id)))
    return [files, ring, versions], store, keys


# Columns of each table in the order of the MAC, with the kind of value. None in a value is SQL NULL.
TABLES = {
    "clients": [("id", int), ("name", str), ("spiffe_id", str), ("enabled", bool), ("automation", bool),
                ("content", bool), ("owner", int), ("description", str), ("created_at", int), ("created_by", str),
                ("updated_at", int), ("updated_by", str)],
    "groups": [("id", int), ("name", str), ("owner", int), ("description", str), ("created_at", int),
               ("created_by", str), ("updated_at", int), ("updated_by", str), ("metadata", str)],
    "memberships": [("client_id", int), ("group_id", int), ("created_at", int)],
    "grants": [("group_id", int), ("secret_id", int), ("created_at", int)],
    "secrets": [("id", int), ("name", str), ("owner", int), ("current_version", int), ("expiry", int), ("type", str),
                ("state", int), ("newest_number", int), ("sequence", int), ("description", str), ("created_at", int),
                ("created_by", str), ("updated_at", int), ("updated_by", str)],
    "versions": [("id", int), ("secret_id", int), ("number", int), ("created_at", int), ("created_by", str),
                 ("metadata", str), ("expiry", int), ("checksum", bytes), ("size", int)],
}
NULLABLE = {"spiffe_id", "type", "owner"}


def row_vectors(store, mac_key):
    out = Vectors("rows.txt", '"Row MACs"; columns in the order of the encoding')
    for table, columns in TABLES.items():
        for i in range(2):
            values = {}
            for column, kind in columns:
                seed = f"row/{table}/{column}/{i}"
                if i == 1 and column in NULLABLE:
                    values[column] = None
                elif column == "state":
                    values[column] = 1 + i
                elif kind is int:
                    values[column] = number(seed, 63) - ((1 << 63) if column == "id" and i == 1 else 0)
                elif kind is bool:
                    values[column] = stream(seed, 1)[0] & 1
                elif kind is bytes:
                    values[column] = stream(seed, 32)
                else:
                    values[column] = f"{column} of {table} {i}: \u00e4|b" if i == 0 else ""
            out.add(f"{table}_{i}", store_id=store, key=mac_key, table=table, **values,
                    mac=blake2b(mac_key, canonical(f"lk/v1/row/{table}", store, *values.values())))
    value = stream("setting", 40)
    out.add("settings_0", store_id=store, key=mac_key, table="settings", name="feed.start", value=value,
            stored=value + blake2b(mac_key, canonical("lk/v1/row/settings", store, "feed.start", value)))
    return out


def main():
    check_primitives()
    files, store, keys = store_vectors()
    files = [canonical_vectors(), envelope_vectors(), wrap_vectors()] + hash_vectors() + files
    files.append(row_vectors(store, keys["mac"]))
    wrong = [f for f in files if not f.path.exists() or f.path.read_text() != f.text()]
    if sys.argv[1:] == ["--check"]:
        for f in wrong:
            print(f"{f.path.name} differs from what generate.py writes", file=sys.stderr)
        return 1 if wrong else 0
    for f in wrong:
        f.path.write_text(f.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
