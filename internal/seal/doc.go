// Package seal keeps data at rest unreadable to whoever does not have the operator's key.
//
// Main types: [Key], which the operator keeps outside of the data directory; [Sealer], which a Key opens, and from which every part of
// ebb gets a [Box] of its own.
//
// Guarantees:
//
//  1. A Key and what is derived from it are never printed: their texts say only what they are.
//  2. What a Box opens is what was sealed for the same purpose and the same place, byte for byte, or an error. Data that was
//     changed, cut or moved is [ErrOpen], never other data.
//  3. Nonces are random and of 192 bits, so that one key may seal as much as there is.
//  4. A nil Sealer gives nil Boxes, and a nil Box passes everything through as it is: an unsealed Node takes the same way.
//
// The cipher is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha). The operator's Key wraps one random root key, kept in the data
// directory's file; all others are derived from that by HKDF-SHA256 (RFC 5869), so that another Key costs one small file.
//
// It does not hide sizes, times and counts, does not notice an older copy of data put back as a whole, and knows nothing of the
// memory of the process.
package seal
