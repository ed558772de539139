package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// environ writes its own environment to a file, as a JSON array: run in the image of the user's container, which may
// have no program of its own that could, that is what the image sets.
func environ(args []string, stderr io.Writer) error {
	fs := flag.NewFlagSet("environ", flag.ContinueOnError)
	save := fs.String("save", "", "the file")
	if err := parse(fs, args, stderr); err != nil {
		return err
	}
	if *save == "" {
		return fmt.Errorf("%w: environ needs --save FILE", errUsage)
	}
	text, err := json.Marshal(os.Environ())
	if err != nil {
		return err
	}
	// The agent that reads it may be another user. Nobody else has the volume.
	return os.WriteFile(*save, text, 0o644)
}

// install copies this program to a path, for another image's container to run.
func install(args []string, stderr io.Writer) error {
	fs := flag.NewFlagSet("install", flag.ContinueOnError)
	fs.SetOutput(stderr)
	if err := fs.Parse(args); err != nil || fs.NArg() != 1 {
		return fmt.Errorf("%w: install takes one path", errUsage)
	}
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(fs.Arg(0), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
