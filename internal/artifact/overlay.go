package artifact

import (
	"fmt"
	"slices"
)

// Overlay makes one Artifact of several that are here, in which a later one covers an earlier one, and returns its digest. It stays as
// long as it is kept itself: those that it was made of may go. Overlaying the same again gives the same digest.
func (s *Store) Overlay(digests ...string) (string, error) {
	if len(digests) == 1 {
		if _, err := s.Manifest(digests[0]); err != nil {
			return "", err
		}
		return digests[0], nil
	}
	trees := make([]*Tree, 0, len(digests))
	for _, digest := range digests {
		m, err := s.Manifest(digest)
		if err != nil {
			return "", err
		}
		trees = append(trees, &Tree{Manifest: *m})
	}
	slices.Reverse(trees)
	digest, err := s.PutManifest(&Merge(trees...).Manifest)
	if err != nil {
		return "", fmt.Errorf("overlay artifacts: %w", err)
	}
	return digest, nil
}
