package mount

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// Sweep takes away the mounts, in folders that match a pattern (filepath.Match),
// whose process was killed: nobody answers for them any more. The folders go with
// them. Those of processes that live, and of other users, stay.
func Sweep(pattern string) error {
	dirs, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		if _, err := os.Stat(dir); !errors.Is(err, syscall.ENOTCONN) {
			continue
		}
		if err := detach(dir); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := os.Remove(dir); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
