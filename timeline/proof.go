package timeline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Proof shows that a log contains an entry to a reader who has the log's public
// key and nothing else.
type Proof struct {
	Entry      string      `json:"line"` // the exact text
	Index      int64       `json:"index"`
	Hashes     []tlog.Hash `json:"hashes"`     // RFC 6962 audit path, in base64
	Checkpoint string      `json:"checkpoint"` // signed note
}

// maxProof bounds the text of a proof in bytes, maxHashes its path: a tree of
// 2^63 leaves has 63 levels.
const (
	maxProof  = 256 << 10
	maxHashes = 64
)

// Prove returns the proof of an entry of the archive, under the archive's
// checkpoint. It fails with [postern.NotFound] if there is no such entry.
func Prove(ctx context.Context, a Archive, entry string, index int64) (Proof, error) {
	s, err := a.State(ctx)
	if err != nil {
		return Proof{}, err
	}
	return proveUnder(ctx, a, entry, index, s.Size, s.Checkpoint)
}

// ProveUnder returns the proof of an entry of the archive under a checkpoint that its log
// signed, with the key v verifies, as one that witnesses cosigned. It is an error if the
// checkpoint does not have the entry, or if the archive's log is not the one that it signs.
func ProveUnder(
	ctx context.Context, a Archive, v note.Verifier, entry string, index int64, signed string,
) (Proof, error) {
	c, err := OpenCheckpoint(signed, v)
	if err != nil {
		return Proof{}, err
	}
	p, err := proveUnder(ctx, a, entry, index, c.Size, signed)
	if err == nil {
		_, _, err = p.Check(v)
	}
	return p, err
}

func proveUnder(ctx context.Context, a Archive, entry string, index, size int64, signed string) (Proof, error) {
	if index < 0 || index >= size {
		return Proof{}, postern.Errorf(postern.NotFound, "there is no entry %d: the log has %d", index, size)
	}
	s, err := a.State(ctx)
	if err != nil {
		return Proof{}, err
	}
	if size > s.Size {
		return Proof{}, postern.Errorf(postern.Conflict, "the log has %d entries, and not the %d that were signed",
			s.Size, size)
	}
	tree, err := LoadTree(s.Size, s.Edge)
	if err != nil {
		return Proof{}, err
	}
	path, err := tlog.ProveRecord(size, index, hashReader(ctx, a, tree))
	if err != nil {
		return Proof{}, fmt.Errorf("prove entry %d: %w", index, err)
	}
	return Proof{entry, index, path, signed}, nil
}

// hashReader reads the tree's hashes out of the archive's tiles and the edge. Hashes of
// one tile that follow each other are read at once.
func hashReader(ctx context.Context, a Archive, tree *Tree) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		read := Tile{Level: -1}
		var kept []tlog.Hash
		for i, index := range indexes {
			level, n := tlog.SplitStoredHashIndex(index)
			height := level % TileHeight      // levels between the hash and those of its tile
			per := int64(tileWidth >> height) // hashes of that height in a tile
			if read.Level != level/TileHeight || read.N != n/per {
				var err error
				if kept, err = tileOf(ctx, a, tree, level/TileHeight, n/per); err != nil {
					return nil, err
				}
				read = Tile{Level: level / TileHeight, N: n / per}
			}
			at := int(n%per) << height
			if at+1<<height > len(kept) {
				return nil, fmt.Errorf("tile %d/%d is missing or too short", level/TileHeight, n/per)
			}
			hashes[i] = fold(kept[at : at+1<<height])
		}
		return hashes, nil
	})
}

// tileOf returns the hashes of a tile, which may be the edge's.
func tileOf(ctx context.Context, a Archive, tree *Tree, level int, n int64) ([]tlog.Hash, error) {
	if n == tree.size>>(TileHeight*(level+1)) && level < len(tree.edge) {
		return tree.edge[level], nil
	}
	data, err := a.Tile(ctx, level, n)
	return split(data), err
}

// ParseProof reads a proof from its JSON.
func ParseProof(text []byte) (Proof, error) {
	var p Proof
	if len(text) > maxProof {
		return p, postern.Errorf(postern.Invalid, "the proof is longer than %d bytes", maxProof)
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, postern.Errorf(postern.Invalid, "the proof cannot be read: %w", err)
	}
	return p, nil
}

// Checked is what a proof proves.
type Checked struct {
	Entry      string // the exact text
	Event      postern.Event
	Checkpoint Checkpoint
	// Cosigned is when which witnesses cosigned the checkpoint, by their names in the policy.
	Cosigned map[string]time.Time
	// Retired says that no key signed the checkpoint that the log signs with now. Who has a
	// retired key can still make proofs with it.
	Retired bool
}

// String says so in a sentence, and in another one for each witness.
func (c Checked) String() string {
	text := fmt.Sprintf("ok: entry %d of %s, of %d entries when it was proved", c.Event.Index, c.Checkpoint.Origin,
		c.Checkpoint.Size)
	if c.Retired {
		text += "\nthe key that signed it was retired since: if others have that key, a witness or a proof by the " +
			"present key alone shows when the entry was there"
	}
	for _, name := range slices.Sorted(maps.Keys(c.Cosigned)) {
		text += fmt.Sprintf("\nthe witness %s vouches for it, as it was at %s", name,
			c.Cosigned[name].Format(time.RFC3339))
	}
	return text
}

// CheckProof checks a proof, as its JSON is written, by the public key of its log. It
// fails with [postern.Denied] if the proof proves nothing.
func CheckProof(text []byte, key string) (c Checked, err error) {
	v, err := ParseKeys(key)
	if err != nil {
		return c, postern.Errorf(postern.Invalid, "that is not a log's public key")
	}
	p, err := ParseProof(text)
	if err != nil {
		return c, err
	}
	c.Entry = p.Entry
	c.Event, c.Checkpoint, err = p.Check(v)
	_, late := OpenLatest(p.Checkpoint, v)
	c.Retired = err == nil && late != nil
	return c, err
}

// CheckProofByPolicy checks a proof as [Policy.CheckProof] does.
func CheckProofByPolicy(text, policy []byte) (Checked, error) {
	p, err := ParsePolicy(policy)
	if err != nil {
		return Checked{}, err
	}
	return p.CheckProof(text)
}

// Check returns the event that the proof proves and the checkpoint that it is
// proved by. It fails with [postern.Denied] if the proof proves nothing.
func (p Proof) Check(v note.Verifier) (postern.Event, Checkpoint, error) {
	c, err := OpenCheckpoint(p.Checkpoint, v)
	if err != nil {
		return postern.Event{}, c, postern.Errorf(postern.Denied, "the proof's %w", err).
			WithHint("the log may have another key by now: check with its newest public keys, in a policy a line " +
				"for each")
	}
	if p.Index < 0 || p.Index >= c.Size || len(p.Hashes) > maxHashes {
		return postern.Event{}, c, postern.Errorf(postern.Denied,
			"the proof is of an entry that the checkpoint does not have")
	}
	if err := tlog.CheckRecord(p.Hashes, c.Size, c.Root, p.Index, tlog.RecordHash([]byte(p.Entry))); err != nil {
		return postern.Event{}, c, postern.Errorf(postern.Denied, "the proof does not prove its entry").
			WithHint("one of the two was changed: ask for the proof again")
	}
	e, err := Decode([]byte(p.Entry))
	if err != nil {
		return e, c, postern.Errorf(postern.Denied, "the proof's entry is not an event: %w", err)
	}
	return e, c, nil
}

// RootAt returns the size of the log that an archive keeps, and the root that it had
// with its first n entries, if there are as many. It does not check the archive's
// tiles, as [Verify] does.
func RootAt(ctx context.Context, a Archive, n int64) (size int64, root tlog.Hash, err error) {
	s, err := a.State(ctx)
	if err != nil || n > s.Size {
		return s.Size, root, err
	}
	tree, err := LoadTree(s.Size, s.Edge)
	if err != nil {
		return s.Size, root, err
	}
	root, err = tlog.TreeHash(n, hashReader(ctx, a, tree))
	return s.Size, root, err
}
