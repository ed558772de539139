package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// requestTime is how long one request may take.
const requestTime = 20 * time.Second

// get prints the bodies of URLs; an answer that is no success is an error.
func get(ctx context.Context, urls []string) error {
	for _, url := range urls {
		body, err := fetch(ctx, http.DefaultClient, url)
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(body); err != nil {
			return err
		}
	}
	return nil
}

// cat prints files.
func cat(files []string) error {
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(content); err != nil {
			return err
		}
	}
	return nil
}

// read reads what is below folders.
func read(folders []string) error {
	for _, folder := range folders {
		began, files, bytes := time.Now(), 0, 0
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(path)
			files, bytes = files+1, bytes+len(content)
			return err
		})
		if err != nil {
			return err
		}
		fmt.Printf("%d files, %d bytes, %d us\n", files, bytes, time.Since(began).Microseconds())
	}
	return nil
}

func fetch(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", url, response.Status, body)
	}
	return body, nil
}

// echo sends a text and prints what comes back. With TCP it says that this was
// all, and then reads to the end.
func echo(ctx context.Context, kind, address, text string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, kind, address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(requestTime)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	var answer []byte
	if stream, ok := conn.(*net.TCPConn); ok {
		if err := stream.CloseWrite(); err != nil {
			return err
		}
		answer, err = io.ReadAll(conn)
	} else {
		answer = make([]byte, 1<<16)
		var n int
		n, err = conn.Read(answer)
		answer = answer[:n]
	}
	if err != nil {
		return err
	}
	fmt.Printf("%s\n", answer)
	return nil
}

func lookup(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	for _, name := range names {
		addresses, err := net.DefaultResolver.LookupHost(ctx, name)
		if err != nil {
			return err
		}
		slices.Sort(addresses)
		for _, address := range addresses {
			fmt.Println(address)
		}
	}
	return nil
}
