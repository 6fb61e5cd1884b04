package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
)

const (
	storeFormat = 1
	storeHead   = "ebb-artifacts "
	// syncOneByOne is how many files are brought to disk singly; more are cheaper with one sync of the file system.
	syncOneByOne = 256
	// young is what Collect never removes.
	young = 10 * time.Minute
)

// Store holds Artifacts in a folder:
//
//	FORMAT                    version of this layout
//	blobs/<aa>/<sha>          content, mode 0444; <sha>.x is the same with mode 0555
//	manifests/<digest>.json
//	trees/<digest>/           unpacked; files are hard-linked to blobs where their mode protects these, and copies elsewhere
//	pending/<sha>             verified content no Manifest has asked for yet; kept over a restart, so that an upload goes on where it was
//
// In a sealed one blobs and manifests are sealed, and trees are elsewhere, where they are not kept: all files of theirs are copies.
//
// One process uses a Store at a time. Its methods may be called concurrently.
type Store struct {
	// Limits bound what PutManifest accepts. Set before first use.
	Limits Limits
	dir    string
	trees  string    // folder of what is unpacked, which guests read
	box    *seal.Box // what blobs and manifests are sealed by; nil for none
	link   bool      // modes keep guests from writing to files, so that trees may share them with blobs

	// promote serialises moving pending blobs and removing blobs; it is held over I/O and never while mu is held.
	promote sync.Mutex
	mu      struct {
		sync.Mutex
		asked map[string]time.Time      // blobs that Missing said are here: a client counts on them
		trees map[string]*materialising // in the making
		ready map[string]bool           // trees checked by this process
		whole map[string]fileID         // files of blobs and pending, by name, that this process has seen to hold what they should
	}
}

// OpenStore opens or makes the Store in dir. A Store of a newer format is refused and left untouched.
func OpenStore(dir string) (*Store, error) {
	return newStore(&Store{dir: dir, trees: filepath.Join(dir, "trees")})
}

// OpenSealed opens or makes a Store whose content is sealed by box, and that unpacks to the folder trees. A nil box seals nothing.
func OpenSealed(dir, trees string, box *seal.Box) (*Store, error) {
	if box == nil {
		return OpenStore(dir)
	}
	return newStore(&Store{dir: dir, trees: trees, box: box})
}

func newStore(s *Store) (*Store, error) {
	s.Limits = DefaultLimits()
	s.mu.asked, s.mu.trees, s.mu.ready = map[string]time.Time{}, map[string]*materialising{}, map[string]bool{}
	s.mu.whole = map[string]fileID{}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open artifact store: %w", err)
	}
	return s, nil
}

func (s *Store) open() error {
	format := filepath.Join(s.dir, "FORMAT")
	data, err := os.ReadFile(format)
	switch {
	case err == nil:
		n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(string(data), storeHead)))
		if err != nil || !strings.HasPrefix(string(data), storeHead) {
			return errs.New(errs.Invalid, "%s is not an artifact store's format file", format).
				WithHint("Move the folder %s away; what was deployed is deployed again.", s.dir)
		}
		if n > storeFormat {
			return errs.New(errs.Unsupported, "the store in %s has format %d; this ebb knows up to %d", s.dir, n, storeFormat).
				WithHint("Use the newer ebb that wrote it.")
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	in := func(name string) string { return filepath.Join(s.dir, name) }
	for _, d := range []string{in("blobs"), in("manifests"), s.trees, in("pending")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return spaceError(d, err)
		}
	}
	for _, pattern := range []string{filepath.Join(s.trees, ".tmp-*"), in("manifests/.tmp-*"), in("blobs/*/.tmp-*"), in("pending/.tmp-*")} {
		left, _ := filepath.Glob(pattern)
		for _, p := range left {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	if s.box == nil {
		if s.link, err = modesProtect(s.trees); err != nil {
			return spaceError(s.dir, err)
		}
	}
	if data == nil {
		return s.durable(format, []byte(storeHead+strconv.Itoa(storeFormat)+"\n"))
	}
	return nil
}

func (s *Store) blob(sha string) string     { return filepath.Join(s.dir, "blobs", sha[:2], sha) }
func (s *Store) pending(name string) string { return filepath.Join(s.dir, "pending", name) }
func (s *Store) tree(digest string) string  { return filepath.Join(s.trees, digest) }
func (s *Store) manifestFile(digest string) string {
	return filepath.Join(s.dir, "manifests", digest+".json")
}

// has says whether the bytes are here, on disk for good or pending. A blob that is damaged is removed.
func (s *Store) has(sha string) bool {
	_, ok, err := s.whole(s.blob(sha))
	if ok {
		return true
	}
	if err == nil {
		s.promote.Lock()
		s.discard(sha)
		s.promote.Unlock()
	}
	_, ok, _ = s.whole(s.pending(sha))
	return ok
}

// Missing returns the digests of m's files that the Store does not have, each once. What it does not name stays for ten
// minutes at least. A blob that this process has not seen yet is read whole first.
func (s *Store) Missing(m *Manifest) []string {
	var all []string
	seen := map[string]bool{}
	now := time.Now()
	for _, e := range m.Entries {
		if e.Link != "" || !validSHA(e.SHA256) || seen[e.SHA256] {
			continue
		}
		seen[e.SHA256] = true
		s.mu.Lock()
		s.mu.asked[e.SHA256] = now
		s.mu.Unlock()
		all = append(all, e.SHA256)
	}
	lacks := make([]bool, len(all))
	_ = each(all, func(i int, sha string) error {
		lacks[i] = !s.has(sha)
		return nil
	})
	var missing []string
	for i, sha := range all {
		if lacks[i] {
			missing = append(missing, sha)
		}
	}
	return missing
}

// PutBlob takes size bytes from r, whose SHA-256 must be sha. They are brought to disk by the PutManifest that names
// them; until then a loss of power may take them, and the Store then says that they are missing.
func (s *Store) PutBlob(sha string, size int64, r io.Reader) error {
	if !validSHA(sha) {
		return errs.New(errs.Invalid, "%.80q is not a SHA-256", sha)
	}
	s.mu.Lock()
	s.mu.asked[sha] = time.Now()
	s.mu.Unlock()
	if s.has(sha) {
		_, err := io.Copy(io.Discard, io.LimitReader(r, size))
		return err
	}
	if size < 0 || size > s.Limits.Bytes {
		return errs.New(errs.TooLarge, "a file of %d MB; %d MB are allowed", size>>20, s.Limits.Bytes>>20)
	}
	if err := s.putBlob(sha, size, r); err != nil {
		return fmt.Errorf("store blob %s: %w", sha[:12], err)
	}
	return nil
}

func (s *Store) putBlob(sha string, size int64, r io.Reader) error {
	tmp, err := os.CreateTemp(s.pending(""), ".tmp-*")
	if err != nil {
		return spaceError(s.dir, err)
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	h := sha256.New()
	w := s.box.Writer(tmp, sha)
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, size+1))
	err = errors.Join(err, w.Close())
	info, statErr := tmp.Stat()
	if err = errors.Join(err, statErr, tmp.Chmod(0o444), tmp.Close()); err != nil {
		return spaceError(s.dir, err)
	}
	if n != size {
		return errs.New(errs.Conflict, "%d bytes came, %d were announced", n, size).WithHint("A file changed while it was read; deploy again.")
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sha {
		return errs.New(errs.Conflict, "the bytes have another digest, %s", got[:12]).WithHint("A file changed while it was read; deploy again.")
	}
	if err := os.Rename(tmp.Name(), s.pending(sha)); err != nil {
		return spaceError(s.dir, err)
	}
	s.remember(sha, contentID(info))
	return nil
}

// PutManifest makes an Artifact of the Manifest, whose blobs must be here, and returns its digest. When it returns, all
// of it is on disk.
func (s *Store) PutManifest(m *Manifest) (digest string, err error) {
	if err := m.ValidateWithin(s.Limits); err != nil {
		return "", fmt.Errorf("store artifact: %w", err)
	}
	digest = m.Digest()
	if err := s.putManifest(digest, m); err != nil {
		return "", fmt.Errorf("store artifact %s: %w", digest[:12], err)
	}
	return digest, nil
}

func (s *Store) putManifest(digest string, m *Manifest) error {
	s.promote.Lock()
	defer s.promote.Unlock()
	sizes := map[string]int64{}
	var waiting []string
	for _, e := range m.Entries {
		if e.Link != "" {
			continue
		}
		if size, seen := sizes[e.SHA256]; seen {
			if size != e.Size {
				return errs.New(errs.Invalid, "%q has the same digest as another file and another size", e.Path)
			}
			continue
		}
		sizes[e.SHA256] = e.Size
		size, ok, err := s.whole(s.blob(e.SHA256))
		if err == nil && !ok {
			s.discard(e.SHA256)
		}
		if !ok && (err == nil || errors.Is(err, fs.ErrNotExist)) {
			if size, ok, err = s.whole(s.pending(e.SHA256)); ok {
				waiting = append(waiting, e.SHA256)
			}
		}
		switch {
		case err == nil && !ok, errors.Is(err, fs.ErrNotExist):
			return errs.New(errs.Conflict, "the content of %q is missing", e.Path).WithHint("Deploy again.")
		case err != nil:
			return err
		case size != e.Size:
			return errs.New(errs.Invalid, "%q has %d bytes, not %d", e.Path, size, e.Size)
		}
	}
	if err := s.settle(waiting); err != nil {
		return spaceError(s.dir, err)
	}
	if _, err := os.Lstat(s.manifestFile(digest)); err == nil {
		now := time.Now()
		return os.Chtimes(s.manifestFile(digest), now, now) // young again
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return s.durable(s.manifestFile(digest), s.box.Seal(nil, data, digest))
}

// settle brings pending blobs to disk and then to their place. promote is held.
func (s *Store) settle(waiting []string) error {
	if err := s.sync(waiting); err != nil {
		return err
	}
	touched := map[string]bool{}
	for _, sha := range waiting {
		to := s.blob(sha)
		if !touched[filepath.Dir(to)] {
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			touched[filepath.Dir(to)] = true
		}
		if err := os.Rename(s.pending(sha), to); err != nil {
			return err
		}
	}
	if len(touched) == 0 {
		return nil
	}
	if len(waiting) > syncOneByOne && syncAll(s.dir) == nil {
		return nil
	}
	dirs := []string{filepath.Join(s.dir, "blobs")}
	for d := range touched {
		dirs = append(dirs, d)
	}
	return each(dirs, func(_ int, d string) error { return syncFile(d) })
}

func (s *Store) sync(waiting []string) error {
	if len(waiting) > syncOneByOne {
		if err := syncAll(s.dir); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return each(waiting, func(_ int, sha string) error { return syncFile(s.pending(sha)) })
}

// each calls f for every item, several at once: file systems commit syncs in groups.
func each[T any](items []T, f func(i int, item T) error) error {
	var wg sync.WaitGroup
	next := make(chan int)
	fails := make([]error, len(items))
	for range min(len(items), 8*runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := range next {
				fails[i] = f(i, items[i])
			}
		})
	}
	for i := range items {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(fails...)
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// durable writes a file that is either absent or whole, and on disk when it returns.
func (s *Store) durable(name string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return spaceError(s.dir, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return spaceError(s.dir, err)
	}
	if err := os.Rename(tmp.Name(), name); err != nil {
		return spaceError(s.dir, err)
	}
	return syncFile(filepath.Dir(name))
}

// Manifest returns the Manifest of an Artifact in the Store.
func (s *Store) Manifest(digest string) (*Manifest, error) {
	if err := validDigest(digest); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(s.manifestFile(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "no artifact %s", digest[:12]).WithHint("Deploy again.")
	}
	if err != nil {
		return nil, fmt.Errorf("read artifact %s: %w", digest[:12], err)
	}
	var m Manifest
	data, err = s.box.Open(nil, data, digest)
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil || m.Digest() != digest {
		return nil, errs.New(errs.Internal, "the manifest of artifact %s is damaged", digest[:12]).
			WithHint("Remove %s and deploy again.", s.manifestFile(digest))
	}
	return &m, nil
}

// Open gives the content of a blob.
func (s *Store) Open(sha string) (io.ReadCloser, error) {
	if !validSHA(sha) {
		return nil, errs.New(errs.Invalid, "%.80q is not a SHA-256", sha)
	}
	_, ok, err := s.whole(s.blob(sha))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "no blob %s", sha[:12])
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", sha[:12], err)
	}
	if !ok {
		return nil, errs.New(errs.Internal, "the content %s is damaged", sha[:12]).WithHint("Deploy again.")
	}
	return s.content(s.blob(sha))
}

// content gives what a file of blobs or pending holds, opened where it is sealed.
func (s *Store) content(file string) (io.ReadCloser, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{s.box.Reader(f, strings.TrimSuffix(filepath.Base(file), ".x")), f}, nil
}

// Put sends a Tree to the Store: what is missing, then the Manifest.
func (s *Store) Put(t *Tree) (digest string, err error) {
	need := map[string]bool{}
	for _, sha := range s.Missing(&t.Manifest) {
		need[sha] = true
	}
	for _, e := range t.Manifest.Entries {
		if e.Link != "" || !need[e.SHA256] {
			continue
		}
		delete(need, e.SHA256)
		r, err := t.Open(e)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", e.Path, err)
		}
		err = s.PutBlob(e.SHA256, e.Size, r)
		r.Close()
		if err != nil {
			return "", fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return s.PutManifest(&t.Manifest)
}

// spaceError says clearly that a disk is full, and returns any other error as it is.
func spaceError(dir string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errs.New(errs.Unavailable, "no space left on the disk of %s: %w", dir, err).
			WithHint("Free some space there, or use another folder with --data.")
	}
	return err
}
