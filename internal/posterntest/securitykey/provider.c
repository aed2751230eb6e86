// A provider of FIDO2 keys for ssh and ssh-keygen, in software: OpenSSH's sk-api.h, major
// version 10. A key's handle is its private key. The directory that the environment's
// POSTERN_SK names has what signs attestations: attestation.pem, a key on P-256, and
// attestation.der, its certificate; and the file pin. While it has a file named untouched,
// nobody touches the FIDO2 key.

#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VERSION 0x000a0000
enum { ECDSA = 0, ED25519 = 1 };
enum { TOUCH = 0x01, VERIFY = 0x04 };                     // flags, asked for and given
enum { FAILED = -1, UNSUPPORTED = -2, PIN_REQUIRED = -3 }; // SSH_SK_ERR_*

struct sk_option;
struct sk_resident_key;

struct sk_enroll_response {
	uint8_t flags;
	uint8_t *public_key;
	size_t public_key_len;
	uint8_t *key_handle;
	size_t key_handle_len;
	uint8_t *signature;
	size_t signature_len;
	uint8_t *attestation_cert;
	size_t attestation_cert_len;
	uint8_t *authdata;
	size_t authdata_len;
};

struct sk_sign_response {
	uint8_t flags;
	uint32_t counter;
	uint8_t *sig_r;
	size_t sig_r_len;
	uint8_t *sig_s;
	size_t sig_s_len;
};

uint32_t sk_api_version(void) { return VERSION; }

// open_file opens a file of the directory, or returns NULL.
static FILE *open_file(const char *name)
{
	char path[4096];
	const char *dir = getenv("POSTERN_SK");

	if (!dir)
		return NULL;
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return fopen(path, "rb");
}

static size_t read_file(const char *name, uint8_t *buf, size_t max)
{
	FILE *f = open_file(name);
	size_t n;

	if (!f)
		return 0;
	n = fread(buf, 1, max, f);
	fclose(f);
	return n;
}

static int untouched(void)
{
	FILE *f = open_file("untouched");

	if (f)
		fclose(f);
	return f != NULL;
}

// verified returns whether the PIN is right: 1, 0 for none, -1 for a wrong one.
static int verified(const char *pin)
{
	uint8_t want[64];
	size_t n = read_file("pin", want, sizeof(want));

	if (!pin || !*pin)
		return 0;
	return n == strlen(pin) && memcmp(pin, want, n) == 0 ? 1 : -1;
}

static uint8_t *copy(const void *p, size_t n)
{
	uint8_t *out = malloc(n ? n : 1);

	if (out)
		memcpy(out, p, n);
	return out;
}

// key_of makes the key of a handle.
static EC_KEY *key_of(const uint8_t *handle)
{
	EC_KEY *k = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
	BIGNUM *d = BN_bin2bn(handle, 32, NULL);
	EC_POINT *q = EC_POINT_new(EC_KEY_get0_group(k));

	EC_POINT_mul(EC_KEY_get0_group(k), q, d, NULL, NULL, NULL);
	EC_KEY_set_private_key(k, d);
	EC_KEY_set_public_key(k, q);
	BN_free(d);
	EC_POINT_free(q);
	return k;
}

// public_of writes the public key of a handle as sk-api.h has it, and returns its length.
static size_t public_of(uint32_t alg, const uint8_t *handle, uint8_t out[65])
{
	size_t n = 65;

	if (alg == ED25519) {
		EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, handle, 32);

		EVP_PKEY_get_raw_public_key(k, out, &n);
		EVP_PKEY_free(k);
		return n;
	}
	EC_KEY *k = key_of(handle);

	n = EC_POINT_point2oct(EC_KEY_get0_group(k), EC_KEY_get0_public_key(k), POINT_CONVERSION_UNCOMPRESSED, out, 65,
			       NULL);
	EC_KEY_free(k);
	return n;
}

static uint8_t *put(uint8_t *p, const void *from, size_t n)
{
	memcpy(p, from, n);
	return p + n;
}

// authenticator_data writes WebAuthn's, section 6.1, and returns its length.
static size_t authenticator_data(uint8_t *out, uint32_t alg, const char *application, int uv, int protect,
				 const uint8_t handle[32], const uint8_t *public)
{
	static const uint8_t aaguid[16] = "postern software";
	uint8_t *p = out;

	SHA256((const uint8_t *)application, strlen(application), p);
	p += 32;
	*p++ = 0x41 | (uv ? VERIFY : 0) | (protect ? 0x80 : 0);
	p = put(p, "\0\0\0\0", 4);
	p = put(p, aaguid, 16);
	p = put(p, "\0\x20", 2);
	p = put(p, handle, 32);
	if (alg == ED25519) {
		p = put(p, "\xa4\x01\x01\x03\x27\x20\x06\x21\x58\x20", 10);
		p = put(p, public, 32);
	} else {
		p = put(p, "\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20", 10);
		p = put(p, public + 1, 32);
		p = put(p, "\x22\x58\x20", 3);
		p = put(p, public + 33, 32);
	}
	if (protect)
		p = put(p, "\xa1\x6b" "credProtect\x03", 14);
	return p - out;
}

// attest signs as the device's maker has it do.
static int attest(struct sk_enroll_response *r, const uint8_t *data, size_t len, const uint8_t *challenge, size_t n)
{
	uint8_t hash[32], cert[4096], signature[128];
	size_t signed_len = sizeof(signature);
	FILE *f = open_file("attestation.pem");
	EVP_PKEY *key = f ? PEM_read_PrivateKey(f, NULL, NULL, NULL) : NULL;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int ok;

	if (f)
		fclose(f);
	SHA256(challenge, n, hash);
	ok = key && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
	     EVP_DigestSignUpdate(ctx, data, len) == 1 && EVP_DigestSignUpdate(ctx, hash, sizeof(hash)) == 1 &&
	     EVP_DigestSignFinal(ctx, signature, &signed_len) == 1;
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
	if (!ok)
		return FAILED;
	r->signature = copy(signature, r->signature_len = signed_len);
	r->attestation_cert_len = read_file("attestation.der", cert, sizeof(cert));
	r->attestation_cert = copy(cert, r->attestation_cert_len);
	return 0;
}

int sk_enroll(uint32_t alg, const uint8_t *challenge, size_t challenge_len, const char *application, uint8_t flags,
	      const char *pin, struct sk_option **options, struct sk_enroll_response **out)
{
	uint8_t handle[32], public[65], data[512];
	struct sk_enroll_response *r;
	int uv = verified(pin);
	size_t n;

	(void)options;
	if (alg != ECDSA && alg != ED25519)
		return UNSUPPORTED;
	if (uv < 0 || (flags & VERIFY && uv == 0))
		return PIN_REQUIRED;
	if (untouched() || RAND_bytes(handle, sizeof(handle)) != 1 || !(r = calloc(1, sizeof(*r))))
		return FAILED;
	handle[0] = 0; // below the order of P-256
	r->flags = flags;
	n = public_of(alg, handle, public);
	r->public_key = copy(public, r->public_key_len = n);
	r->key_handle = copy(handle, r->key_handle_len = sizeof(handle));
	n = authenticator_data(data + 2, alg, application, uv, flags & VERIFY, handle, public);
	if (attest(r, data + 2, n, challenge, challenge_len)) {
		free(r);
		return FAILED;
	}
	data[0] = 0x58; // a byte string of CBOR with a length of one byte
	data[1] = n;
	r->authdata = copy(data, r->authdata_len = n + 2);
	*out = r;
	return 0;
}

static int sign_ecdsa(const uint8_t *handle, const uint8_t hash[32], struct sk_sign_response *r)
{
	EC_KEY *k = key_of(handle);
	ECDSA_SIG *sig = ECDSA_do_sign(hash, 32, k);
	const BIGNUM *sr, *ss;

	EC_KEY_free(k);
	if (!sig)
		return FAILED;
	ECDSA_SIG_get0(sig, &sr, &ss);
	r->sig_r = malloc(r->sig_r_len = BN_num_bytes(sr));
	r->sig_s = malloc(r->sig_s_len = BN_num_bytes(ss));
	BN_bn2bin(sr, r->sig_r);
	BN_bn2bin(ss, r->sig_s);
	ECDSA_SIG_free(sig);
	return 0;
}

static int sign_ed25519(const uint8_t *handle, const uint8_t *data, size_t n, struct sk_sign_response *r)
{
	EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, handle, 32);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int ok;

	r->sig_r = malloc(r->sig_r_len = 64);
	ok = k && EVP_DigestSignInit(ctx, NULL, NULL, NULL, k) == 1 &&
	     EVP_DigestSign(ctx, r->sig_r, &r->sig_r_len, data, n) == 1;
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(k);
	return ok ? 0 : FAILED;
}

int sk_sign(uint32_t alg, const uint8_t *message, size_t message_len, const char *application,
	    const uint8_t *key_handle, size_t key_handle_len, uint8_t flags, const char *pin, struct sk_option **options,
	    struct sk_sign_response **out)
{
	uint8_t data[32 + 1 + 4 + 32], hash[32];
	struct sk_sign_response *r;
	int uv = verified(pin), failed;

	(void)options;
	if (key_handle_len != 32)
		return FAILED;
	if (uv < 0 || (flags & VERIFY && uv == 0))
		return PIN_REQUIRED;
	if ((flags & TOUCH && untouched()) || !(r = calloc(1, sizeof(*r))))
		return FAILED;
	r->flags = (flags & TOUCH) | (uv ? VERIFY : 0);
	r->counter = 1;
	SHA256((const uint8_t *)application, strlen(application), data);
	data[32] = r->flags;
	put(data + 33, "\0\0\0\1", 4);
	SHA256(message, message_len, data + 37);
	if (alg == ED25519) {
		failed = sign_ed25519(key_handle, data, sizeof(data), r);
	} else {
		SHA256(data, sizeof(data), hash);
		failed = sign_ecdsa(key_handle, hash, r);
	}
	if (failed) {
		free(r);
		return FAILED;
	}
	*out = r;
	return 0;
}

int sk_load_resident_keys(const char *pin, struct sk_option **options, struct sk_resident_key ***keys, size_t *n)
{
	(void)pin, (void)options, (void)keys, (void)n;
	return UNSUPPORTED;
}
