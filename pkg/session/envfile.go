package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// envFileText is env in the format of docker's --env-file, a line a variable,
// sorted by name, and the names of those that the format can't hold: it has no
// quotes, so that a value's line break would end it.
func envFileText(env map[string]string) (text []byte, unfit []string) {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if strings.ContainsAny(env[name], "\n\r") || strings.HasPrefix(name, "#") || strings.ContainsAny(name, " \t") {
			unfit = append(unfit, name)
			continue
		}
		fmt.Fprintf(&b, "%s=%s\n", name, env[name])
	}
	return b.Bytes(), unfit
}

// envJSONText is env as a JSON object, sorted by name.
func envJSONText(env map[string]string) ([]byte, error) {
	text, err := json.MarshalIndent(env, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the environment as JSON: %w", err)
	}
	return append(text, '\n'), nil
}

// canWrite returns why a file can't be written at path later. It changes
// nothing.
func canWrite(path string) error {
	switch at, err := os.Stat(path); {
	case err == nil && at.IsDir():
		return fmt.Errorf("writing %s: it is a directory", path)
	case err == nil:
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("writing the environment: %w", err)
		}
		return f.Close()
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("writing the environment: %w", err)
	}
	probe, err := os.CreateTemp(filepath.Dir(path), ".telepresence-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// writePrivate writes a file that only the user may read: an environment has
// passwords in it. A file that is there is replaced as a whole; what isn't a
// plain file (a pipe, /dev/stdout) is written to.
func writePrivate(path string, text []byte) error {
	if at, err := os.Lstat(path); err == nil && !at.Mode().IsRegular() {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return fmt.Errorf("writing the environment: %w", err)
		}
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".telepresence-*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}
