// The one thing that reading a backup needs of zstd: `zstd -dc`, standard input to standard output.
//
// There is no command in Go and no other source of the stock program that needs nothing but Go and a C
// compiler. The decoder is another implementation than the library that wrote the pack.
package main

import (
	"fmt"
	"os"

	"github.com/klauspost/compress/zstd"
)

func main() {
	if err := decompress(); err != nil {
		fmt.Fprintln(os.Stderr, "zstd:", err)
		os.Exit(1)
	}
}

func decompress() error {
	if len(os.Args) != 2 || os.Args[1] != "-dc" {
		return fmt.Errorf("only -dc is known here, not %q", os.Args[1:])
	}
	reader, err := zstd.NewReader(os.Stdin)
	if err != nil {
		return err
	}
	defer reader.Close()
	_, err = reader.WriteTo(os.Stdout)
	return err
}
