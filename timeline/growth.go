package timeline

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// ReadCheckpoint returns what a signed checkpoint says, without checking who signed it:
// for a reader who knows the log's server by other means, and only follows the log.
func ReadCheckpoint(signed string) (c Checkpoint, err error) {
	text, _, ok := strings.Cut(signed, "\n\n")
	lines := strings.Split(text, "\n")
	if !ok || len(signed) > maxCheckpoint || len(lines) < 3 {
		return c, fmt.Errorf("that is no checkpoint")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return c, fmt.Errorf("checkpoint: the size %.40q", lines[1])
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return c, fmt.Errorf("checkpoint: the root %.80q", lines[2])
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: root}, nil
}

// CheckGrowth returns why the log of one checkpoint is not a continuation of that of an
// earlier one, by the proof that [ProveGrowth] made. Before the first checkpoint, older
// is "".
func CheckGrowth(older, newer string, proof tlog.TreeProof) error {
	to, err := ReadCheckpoint(newer)
	if err != nil {
		return err
	}
	if older == "" {
		return nil
	}
	from, err := ReadCheckpoint(older)
	switch {
	case err != nil:
		return err
	case from.Size > to.Size:
		return fmt.Errorf("it has %d entries, and had %d", to.Size, from.Size)
	case from.Size == to.Size && from.Root != to.Root:
		return fmt.Errorf("its first %d entries are others than they were", from.Size)
	case from.Size == to.Size, from.Size == 0:
		return nil
	case len(proof) > maxHashes:
		return fmt.Errorf("a proof of %d hashes", len(proof))
	}
	if err := tlog.CheckTree(proof, to.Size, to.Root, from.Size, from.Root); err != nil {
		return fmt.Errorf("its first %d entries are others than they were", from.Size)
	}
	return nil
}

// Growth returns the archive's newest checkpoint and, for each older size, the proof that
// its log contains that many entries as they were, for [CheckGrowth]. A proof is empty where
// none is needed, or the size is more than the log has.
func Growth(ctx context.Context, a Archive, older ...int64) (signed string, proofs []tlog.TreeProof, err error) {
	s, err := a.State(ctx)
	if err != nil {
		return "", nil, err
	}
	tree, err := LoadTree(s.Size, s.Edge)
	if err != nil {
		return "", nil, err
	}
	proofs = make([]tlog.TreeProof, len(older))
	for i, size := range older {
		if size <= 0 || size >= s.Size {
			continue
		}
		if proofs[i], err = tlog.ProveTree(s.Size, size, hashReader(ctx, a, tree)); err != nil {
			return "", nil, err
		}
	}
	return s.Checkpoint, proofs, nil
}
