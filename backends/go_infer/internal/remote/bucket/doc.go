// Package bucket adds s3:// and gs:// to the addresses of package remote, through gocloud.dev. It is compiled with -tags cloud only: the
// two SDKs are five times the rest of the binary (ADR 35).
//
// Credentials come from the environment as the SDKs have it (AWS_ACCESS_KEY_ID, AWS_PROFILE, instance roles;
// GOOGLE_APPLICATION_CREDENTIALS, metadata server). An s3 address may say endpoint=, region= and use_path_style=true in its query.
package bucket
