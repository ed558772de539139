// Package imagecache lets the nodes of a cluster get an image from each other:
// each byte leaves the registry once, however many nodes want it.
//
// Every node runs a Node, which is a registry for the node's own container
// runtime, on its loopback, and a peer for the other nodes. A blob is fetched in
// chunks. Each chunk has an owner among the nodes that are alive, found by
// rendezvous hashing, so that nobody keeps a list of who has what:
//
//  1. A node that needs a chunk asks its owner. If that is itself, it asks the
//     registry where the image is from: the origin.
//  2. The owner serves the chunk, and fetches it from the origin first if it must;
//     once, for all who ask.
//  3. A peer that is slow is hedged: the next owner, whoever holds the chunk, and at
//     last the origin are asked beside it. One that breaks or lies is shunned.
//  4. The bytes go to the runtime when the digest of the whole is right; of large
//     blobs they go as they come, but for the last chunk.
//
// Peers talk over mutual TLS. Nothing is served that isn't asked for by its
// digest.
package imagecache
