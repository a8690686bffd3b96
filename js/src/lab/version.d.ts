/** The release of this extension, put in when it is built. */
declare const OPSAGENT_VERSION: string;
