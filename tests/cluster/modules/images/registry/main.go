// Command registry is an image registry that keeps layers in a folder: registry ADDRESS FOLDER.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: registry ADDRESS FOLDER")
	}
	layers := registry.NewDiskBlobHandler(os.Args[2])
	log.Fatal(http.ListenAndServe(os.Args[1], registry.New(registry.WithBlobHandler(layers))))
}
