// @tus/server as its README sets it up: a folder, or a bucket with parts of 8 MiB.
//   node tus-server.mjs PORT FOLDER       node tus-server.mjs PORT s3     (with S3_ENDPOINT, S3_BUCKET, AWS_*)
import { FileStore } from "@tus/file-store";
import { S3Store } from "@tus/s3-store";
import { Server } from "@tus/server";

const [port, where] = process.argv.slice(2);
const { S3_ENDPOINT, S3_BUCKET, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY } = process.env;
const datastore =
  where === "s3"
    ? new S3Store({
        partSize: 8 * 1024 * 1024,
        // Garage has no tags.
        useTags: false,
        s3ClientConfig: {
          bucket: S3_BUCKET,
          endpoint: S3_ENDPOINT,
          region: AWS_REGION,
          forcePathStyle: true,
          credentials: { accessKeyId: AWS_ACCESS_KEY_ID, secretAccessKey: AWS_SECRET_ACCESS_KEY },
        },
      })
    : new FileStore({ directory: where });
new Server({ path: "/files", datastore }).listen({ host: "127.0.0.1", port: Number(port) });
