//go:build cloud

package main

import _ "sluicegate/go_infer/internal/remote/bucket" // s3:// and gs:// base paths
